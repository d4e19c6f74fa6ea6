/** The report of a ranking: rank.json, report.html, ranking.tex, ranking.md, ranking.csv. */
import { join } from "@std/path";
import { UserError } from "../errors.ts";
import type { Audited, AuditSum } from "../eval/audit.ts";
import type { Competition } from "../eval/columns.ts";
import type { TrackResult } from "../eval/ranking.ts";
import { show } from "../eval/ranks.ts";
import { writeWhole } from "../files.ts";
import { escape } from "./html.ts";
import { figures } from "./ranking-figures.ts";
import { finalTable, trackTables, valueTable } from "./ranking-tables.ts";
import { csv, html, latex, markdown, type Table } from "./tables.ts";

/** All that was computed; `config` is the full resolved configuration. */
export interface RankReport {
  config: Record<string, unknown>;
  input: { rows: number; missing: number; repeats: number; sha256: string };
  tracks: TrackResult[];
  audit: Audited[];
  audit_sums: AuditSum[];
  /** Weightings that reproduce every printed overall number. */
  audit_fit: string[];
}

const STYLE =
  `body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:.85rem}caption{text-align:left;font-weight:600;padding:.3rem 0}
caption small{font-weight:400;color:#666}th,td{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}.best{font-weight:700}.second{text-decoration:underline}
.wide{overflow-x:auto}figure{margin:1.5rem 0}figcaption{color:#555;font-size:.85rem}svg{max-width:100%;height:auto}`;

function auditTables({ audit, audit_sums, audit_fit }: RankReport): Table[] {
  if (!audit.length) return [];
  return [{
    title: "Audit of printed ranks",
    header: ["Track", "Group", "Method", "Printed", "Recomputed", "Envelope of ties", "Verdict"],
    rows: audit.map((
      a,
    ) => [
      a.track,
      a.group,
      a.method,
      show(a.printed, a.decimals),
      show(a.recomputed, 3),
      `${show(a.envelope[0], 3)} to ${show(a.envelope[1], 3)}`,
      a.verdict,
    ]),
  }, {
    title: "Sums of printed ranks",
    note: `weightings that reproduce every overall number: ${audit_fit.join("; ") || "none of those tried"}`,
    header: ["Track", "Group", "Sum", "Expected", "Hidden competitor's mean rank", "Finding"],
    rows: audit_sums.map((
      s,
    ) => [s.track, s.group, show(s.sum), show(s.expected), show(s.hidden_mean_rank), s.finding]),
  }];
}

function configTable({ config, input }: RankReport): Table {
  const rows = [...Object.entries(config), ...Object.entries(input)];
  return {
    title: "Configuration and input",
    header: ["Key", "Value"],
    rows: rows.map(([k, v]) => [k, v === null ? "–" : String(v)]),
  };
}

function page(report: RankReport, competitions: readonly Competition[]): string {
  const sections = report.tracks.map((track, i) =>
    [
      `<h2>Track ${escape(track.track)}</h2>`,
      `<p><strong>${escape(track.verdict)}</strong></p>`,
      track.caveats.length ? `<ul>${track.caveats.map((c) => `<li>${escape(c)}</li>`).join("")}</ul>` : "",
      html(finalTable(track)),
      ...figures(track, competitions[i]).map((f) =>
        `<figure>${f.svg}<figcaption>${escape(f.caption)}</figcaption></figure>`
      ),
      ...trackTables(track).slice(1).map(html),
    ].join("\n")
  );
  return [
    "<!doctype html>",
    `<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">`,
    `<title>Ranking</title><style>${STYLE}</style></head><body>`,
    "<h1>Ranking</h1>",
    ...sections,
    ...auditTables(report).map(html),
    html(configTable(report)),
    "</body></html>",
    "",
  ].join("\n");
}

/** The files of a report by name; every byte is a function of the rows (in any order) and the configuration. */
export function reportFiles(
  report: RankReport,
  competitions: readonly Competition[],
): Record<string, string> {
  const many = report.tracks.length > 1;
  const titled = (track: TrackResult, table: Table): Table =>
    many ? { ...table, title: `${table.title} (${track.track})` } : table;
  const columns = [
    "rank",
    "mean_rank",
    "mean_rank_reranked",
    "score",
    "p_best",
    "p_top3",
    "median_rank",
  ] as const;
  return {
    "rank.json": JSON.stringify(report, null, 1) + "\n",
    "report.html": page(report, competitions),
    "ranking.tex": "% needs \\usepackage{booktabs}\n" +
      report.tracks.flatMap((t) => [valueTable(t), finalTable(t)].map((table) => latex(titled(t, table))))
        .join("\n"),
    "ranking.md": ["# Ranking\n"].concat(
      report.tracks.flatMap((t) => [
        `## Track ${t.track}\n\n${t.verdict}\n`,
        ...t.caveats.map((c) => `- ${c}`),
        "",
        ...trackTables(t).map(markdown),
      ]),
      auditTables(report).map(markdown),
      markdown(configTable(report)),
    ).join("\n"),
    "ranking.csv": csv(
      ["track", "method", ...columns, "rank_low95", "rank_high95", "tied_with_winner"],
      report.tracks.flatMap((t) =>
        t.final.map((
          f,
        ) => [
          t.track,
          f.method,
          ...columns.map((c) => f[c]),
          ...(f.rank_interval95 ?? [null, null]),
          String(f.tied_with_winner),
        ])
      ),
    ),
  };
}

/** Writes `files` into `folder` (made when absent), each under a temporary name first; gives their paths. */
export async function writeReport(folder: string, files: Record<string, string>): Promise<string[]> {
  try {
    await Deno.mkdir(folder, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists || error instanceof Deno.errors.NotADirectory)) {
      throw error;
    }
    throw new UserError(`${folder}: this is a file; give -o a folder for the report`);
  }
  const paths: string[] = [];
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, name);
    await writeWhole(path, text);
    paths.push(path);
  }
  return paths;
}
