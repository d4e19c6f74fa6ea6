/** Audit of printed mean ranks: reproduced, possible within rounding and ties, or impossible. */
import { parseCsv } from "../data/csv.ts";
import { oneOf, UserError } from "../errors.ts";
import type { Competition } from "./columns.ts";
import { readValue } from "./rows.ts";
import { aggregate, plan, type Settings } from "./schemes.ts";

/** One printed number as read. */
export interface Printed {
  where: string;
  track: string;
  group: string;
  method: string;
  rank: number;
}

export interface Audited {
  track: string;
  group: string;
  method: string;
  printed: number;
  decimals: number;
  recomputed: number;
  /** Mean rank when this method wins all its ties, and when it loses them all. */
  envelope: [number, number];
  verdict: "reproduced" | "possible" | "impossible";
  /** The mean rank of a competitor whose ranks were left out of the print, where the sum asks for one. */
  hidden_mean_rank?: number;
}

export interface AuditSum {
  track: string;
  group: string;
  sum: number;
  expected: number;
  hidden_mean_rank: number | null;
  finding: string;
}

/** Reads `track,group,method,rank`; track may be absent, an empty or absent group means `overall`. */
export function readAudit(text: string, file: string): { printed: Printed[]; decimals: number } {
  const [header, ...body] = parseCsv(text.replace(/^\uFEFF/, ""), file);
  if (!header || !header.fields.includes("method") || !header.fields.includes("rank")) {
    throw new UserError(`${file}:1: the header lacks method or rank; write track,group,method,rank`);
  }
  let decimals = 0;
  const printed = body.map(({ line, fields }) => {
    const where = `${file}:${line}`;
    const get = (name: string) => fields[header.fields.indexOf(name)] ?? "";
    const rank = readValue(get("rank"), where, "rank");
    if (rank === null) throw new UserError(`${where}: rank is missing; write the printed number`);
    decimals = Math.max(decimals, get("rank").split(".")[1]?.length ?? 0);
    return { where, track: get("track"), group: get("group") || "overall", method: get("method"), rank };
  });
  if (!printed.length) throw new UserError(`${file}: there are no printed ranks; give one per line`);
  return { printed, decimals };
}

/** Mean ranks of one row group or `overall` under one tie rule. */
function meanRanks(c: Competition, settings: Settings, group: string, ties: Settings["ties"]): Float64Array {
  const { units, run } = plan(c, { ...settings, ties });
  if (group === "overall") return run().meanRanks;
  const own = units.filter((u) => u.group === group);
  return aggregate(
    own.map((u) => u.ranks()),
    own,
    { average: settings.average, weights: null },
    own.map(() => 1),
    c.methods.length,
  );
}

/**
 * Judges printed mean ranks against `competitions`. Half a unit of the last printed digit is allowed everywhere.
 * A sum that is off but fits one more competitor gives that competitor's mean rank.
 */
export function audit(
  competitions: readonly Competition[],
  settings: Settings,
  { printed, decimals }: { printed: readonly Printed[]; decimals: number },
): { audit: Audited[]; sums: AuditSum[] } {
  const half = 0.5 * 10 ** -decimals, slack = half + 1e-9;
  const audit: Audited[] = [], sums: AuditSum[] = [];
  const blocks = new Map<string, Printed[]>();
  for (const p of printed) {
    const track = p.track || (competitions.length === 1 ? competitions[0].track : "");
    const key = `${track}\u001e${p.group}`;
    blocks.set(key, [...(blocks.get(key) ?? []), { ...p, track }]);
  }
  for (const own of blocks.values()) {
    const { track, group, where } = own[0];
    const c = competitions.find((x) => x.track === track);
    if (!c) {
      throw new UserError(
        `${where}: track "${track}" is not in the rows, which have ${
          competitions.map((x) => x.track).join(", ")
        }`,
      );
    }
    const groups = [...new Set(c.columns.map((x) => x.group))];
    if (group !== "overall" && !groups.includes(group)) {
      throw new UserError(
        `${where}: group "${group}" is not in the rows; write overall or ${groups.join(", ")}`,
      );
    }
    const [low, high, average] = (["min", "max", "average"] as const).map((ties) =>
      meanRanks(c, settings, group, ties)
    );
    const given = meanRanks(c, settings, group, settings.ties);
    const seen = new Set<string>();
    const entries = own.map((p): Audited => {
      const m = c.methods.indexOf(p.method);
      if (m < 0) {
        throw new UserError(
          `${p.where}: method "${p.method}" is not in the rows; ${oneOf(p.method, c.methods)}`,
        );
      }
      if (seen.has(p.method)) {
        throw new UserError(`${p.where}: method "${p.method}" is printed twice in ${group}; keep one`);
      }
      seen.add(p.method);
      const near = (v: number) => Math.abs(p.rank - v) <= slack;
      const inside = p.rank >= low[m] - slack && p.rank <= high[m] + slack;
      const verdict = near(given[m]) || near(average[m]) ? "reproduced" : inside ? "possible" : "impossible";
      return {
        track,
        group,
        method: p.method,
        printed: p.rank,
        decimals,
        recomputed: given[m],
        envelope: [low[m], high[m]],
        verdict,
      };
    });
    const k = own.length, sum = own.reduce((s, p) => s + p.rank, 0), expected = k * (k + 1) / 2;
    const tolerance = k * half + 1e-9, hidden = (k + 1) * (k + 2) / 2 - sum;
    const fits = Math.abs(sum - expected) <= tolerance;
    const one = !fits && sum > expected && hidden >= 1 - tolerance && hidden <= k + 1 + tolerance;
    const value = Math.round(hidden * 10 ** decimals) / 10 ** decimals;
    const unprinted = c.methods.filter((name) => !seen.has(name));
    const finding = fits
      ? "the sum is right"
      : one
      ? `one more competitor took part in the ranking${
        unprinted.length === 1 && Math.abs(given[c.methods.indexOf(unprinted[0])] - hidden) <= tolerance
          ? `: ${unprinted[0]}`
          : ""
      }`
      : `the sum is ${
        sum < expected ? "too small" : "too large"
      } (ties ranked by min lower it, a slip moves it)`;
    if (one) { for (const e of entries) e.hidden_mean_rank = value; }
    audit.push(...entries);
    sums.push({
      track,
      group,
      sum: Math.round(sum * 1e6) / 1e6,
      expected,
      hidden_mean_rank: one ? value : null,
      finding,
    });
  }
  return { audit, sums };
}

/** Weightings tried by `fit`: what counts alike, then group weights of 1 to 3 without a common factor. */
function* candidates(groups: readonly string[]): Generator<{ name: string; change: Partial<Settings> }> {
  for (const average of ["column", "dataset", "metric", "group"] as const) {
    yield { name: `--average ${average}`, change: { average, weights: null } };
  }
  if (groups.length < 2 || groups.length > 4) return;
  for (let code = 0; code < 3 ** groups.length; code++) {
    const numbers = groups.map((_, i) => Math.floor(code / 3 ** i) % 3 + 1);
    if (numbers.every((n) => n === numbers[0])) continue;
    const name = `--weights ${groups.map((g, i) => `${g}=${numbers[i]}`).join(",")}`;
    yield { name, change: { weights: new Map(groups.map((g, i) => [g, numbers[i]])) } };
  }
}

/** The weightings under which every printed `overall` number of every track is reproduced, as flags to give. */
export function fit(
  competitions: readonly Competition[],
  settings: Settings,
  sheet: { printed: readonly Printed[]; decimals: number },
): string[] {
  const overall = { ...sheet, printed: sheet.printed.filter((p) => p.group === "overall") };
  if (!overall.printed.length) return [];
  const groups = [...new Set(competitions.flatMap((c) => c.columns.map((x) => x.group)))];
  return [...candidates(groups)].filter(({ change }) =>
    audit(competitions, { ...settings, ...change }, overall).audit.every((a) => a.verdict === "reproduced")
  ).map(({ name }) => name);
}
