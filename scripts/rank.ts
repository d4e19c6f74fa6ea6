/** Metric rows in, ranks with uncertainty out: rank.json, report.html, LaTeX, Markdown and CSV tables. */
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { UsageError } from "../lib/errors.ts";
import { audit, fit, readAudit } from "../lib/eval/audit.ts";
import { checkLevel, checkMissing, competitions, parseMissing } from "../lib/eval/columns.ts";
import { rankCompetition } from "../lib/eval/ranking.ts";
import { digest, directions, readRows, readText, usedDirections } from "../lib/eval/rows.ts";
import { parseWeights, SCHEMES, type Settings } from "../lib/eval/schemes.ts";
import { reportFiles, writeReport } from "../lib/report/ranking.ts";

export const command: Command = {
  name: "rank",
  summary: "Ranks methods from metric rows (JSON lines or CSV; rows without a case are dataset summaries).",
  positionals: [{
    name: "ROWS",
    help: "metric rows: .jsonl, .csv, a wide table, or - for stdin",
    access: "read",
    variadic: true,
  }],
  flags: {
    out: {
      type: "string",
      short: "o",
      help: "folder for rank.json, report.html and the tables",
      access: "write",
    },
    ties: {
      type: "string",
      help: "places of equal values",
      default: "average",
      choices: ["average", "min", "max", "dense"],
    },
    scheme: {
      type: "string",
      help: "default mean-then-rank; rank-then-mean for a table of dataset summaries",
      choices: SCHEMES,
    },
    missing: {
      type: "string",
      help: "policy for missing values: worst, fill:V, available or complete; without one they are an error",
    },
    weights: { type: "string", help: "weights of the rows' groups, such as seg=2,cls=1" },
    average: {
      type: "string",
      help: "what counts alike in the mean of ranks (default: column)",
      choices: ["column", "dataset", "metric", "group"],
    },
    metric: { type: "string", help: "metric of a wide table; of long rows, the only metric to rank" },
    direction: { type: "string", help: "direction of further metrics, such as my_score=max,cost=min" },
    bootstrap: {
      type: "integer",
      help: "resamples (all of them when there are at most 65536; 0: none)",
      default: 1000,
      min: 0,
    },
    resample: {
      type: "string",
      help: "what is resampled; default cases, or datasets for summaries",
      choices: ["cases", "datasets"],
    },
    seed: { type: "integer", help: "seed of the resamples", default: 0 },
    alpha: { type: "number", help: "significance level", default: 0.05, min: 0 },
    holm: { type: "boolean", help: "adjust the tests inside the test-based scheme" },
    audit: { type: "string", help: "printed mean ranks, CSV track,group,method,rank", access: "read" },
    check: { type: "boolean", help: "exit 1 when the audit finds an impossible number" },
  },
};

async function main({ positionals, flags }: Arguments): Promise<number> {
  const started = performance.now();
  if (!flags.out) {
    throw new UsageError("rank: -o DIR is missing (folder for rank.json, report.html and the tables)");
  }
  if (flags.check && !flags.audit) {
    throw new UsageError("rank: --check needs --audit FILE with the printed ranks");
  }
  if (flags.alpha <= 0 || flags.alpha >= 1) {
    throw new UsageError(`rank: --alpha is ${flags.alpha}; it must lie between 0 and 1`);
  }
  const missing = parseMissing(flags.missing), known = directions(flags.direction);
  const texts = [];
  for (const path of positionals) texts.push(await readText(path));
  const rows = readRows(texts, known, flags.metric);
  const all = competitions(rows, known);
  checkLevel(all, flags.resample);
  const gaps = checkMissing(all, missing, positionals.join(", "));
  const printed = flags.audit ? readAudit((await readText(flags.audit)).text, flags.audit) : null;
  const weights = parseWeights(flags.weights, [...new Set(rows.map((r) => r.group))].sort(), flags.average);
  const settingsOf = (c: typeof all[number]): Settings => ({
    scheme: flags.scheme ?? (c.table ? "rank-then-mean" : "mean-then-rank"),
    ties: flags.ties,
    missing,
    average: flags.average ?? "column",
    weights,
    alpha: flags.alpha,
    adjust: flags.holm ?? false,
  });
  const level = (c: typeof all[number]) => flags.resample ?? (c.table ? "datasets" : "cases");
  const tracks = all.map((c) => rankCompetition(c, settingsOf(c), flags.bootstrap, flags.seed, level(c)));
  const audit_fit = printed ? fit(all, settingsOf(all[0]), printed) : [];
  const audits = printed ? audit(all, settingsOf(all[0]), printed) : { audit: [], sums: [] };
  const config = {
    scheme: [...new Set(all.map((c) => settingsOf(c).scheme))].join(", "),
    ties: flags.ties,
    missing: flags.missing ?? null,
    average: flags.weights ? "group" : flags.average ?? "column",
    weights: flags.weights ?? null,
    metric: flags.metric ?? null,
    directions: usedDirections(rows, known),
    bootstrap: flags.bootstrap,
    resample: [...new Set(all.map(level))].join(", "),
    seed: flags.seed,
    alpha: flags.alpha,
    holm: flags.holm ?? false,
    tie_decimals: 9,
  };
  const repeats = all.reduce((s, c) => s + c.repeats, 0);
  const input = { rows: rows.length, missing: gaps, repeats, sha256: await digest(rows) };
  const report = { config, input, tracks, audit: audits.audit, audit_sums: audits.sums, audit_fit };
  const files = await writeReport(flags.out, reportFiles(report, all));
  for (const t of tracks) for (const caveat of t.caveats) log(`rank: ${t.track}: ${caveat}`);
  const bad = audits.audit.filter((a) => a.verdict === "impossible");
  writeLine({
    out: flags.out,
    files,
    rows: rows.length,
    missing: gaps,
    tracks: tracks.map((t) => ({
      track: t.track,
      winner: t.winner,
      final: t.final.map((f) => [f.method, f.rank, f.mean_rank]),
    })),
    impossible: bad.length,
    seconds: Math.round(performance.now() - started) / 1000,
  });
  if (!flags.check || !bad.length) return 0;
  const list = bad.slice(0, 8).map((a) =>
    `${a.method} ${a.printed} (${a.group}, at best ${a.envelope.map((v) => v.toFixed(3)).join(" to ")})`
  );
  const count = `${bad.length} printed ranks are impossible`;
  log(`rank: ${flags.audit}: ${count}: ${list.join("; ")}; correct them or the rows`);
  return 1;
}

if (import.meta.main) await run(command, main);
