/** Rows to competitions: per track the methods, and per (dataset, metric) a matrix of values. */
import { UsageError, UserError } from "../errors.ts";
import { compareNames } from "./ranks.ts";
import type { Row } from "./rows.ts";

/** A dataset: its cases (one unnamed case for a summary) and which subject each case belongs to. */
export interface Dataset {
  name: string;
  cases: string[];
  summary: boolean;
  /** [cases]: number of the subject. */
  subject: Uint32Array;
  subjects: number;
}

/** One (dataset, metric, part). Values are as given, NaN is missing. */
export interface Column {
  name: string;
  dataset: number;
  metric: string;
  part: string;
  group: string;
  direction: 1 | -1;
  /** [cases of the dataset][methods] */
  values: Float64Array[];
}

/** One track: all its methods meet on all its columns. */
export interface Competition {
  track: string;
  methods: string[];
  datasets: Dataset[];
  columns: Column[];
  /** True when no dataset has cases: a paper's table. */
  table: boolean;
  repeats: number;
  warnings: string[];
}

const unique = (names: Iterable<string>) => [...new Set(names)].sort(compareNames);

/** Groups sorted rows into competitions, one per track, repeats averaged. */
export function competitions(rows: readonly Row[], known: ReadonlyMap<string, 1 | -1>): Competition[] {
  return unique(rows.map((r) => r.track)).map((track) =>
    competition(track, rows.filter((r) => r.track === track), known)
  );
}

function competition(track: string, rows: readonly Row[], known: ReadonlyMap<string, 1 | -1>): Competition {
  const methods = unique(rows.map((r) => r.method));
  const at = new Map(methods.map((m, i) => [m, i]));
  const warnings: string[] = [];
  const datasets = unique(rows.map((r) => r.dataset)).map((name): Dataset => {
    const own = rows.filter((r) => r.dataset === name);
    const cases = unique(own.map((r) => r.case));
    const subjectOf = new Map(own.filter((r) => r.subject).map((r) => [r.case, r.subject]));
    const names = cases.map((c) => subjectOf.get(c) ?? `case ${c}`);
    const list = unique(names), number = new Map(list.map((s, i) => [s, i]));
    const seen = new Set(own.map((r) => r.method));
    if (seen.size < methods.length) {
      warnings.push(`dataset ${name} has no rows of ${methods.filter((m) => !seen.has(m)).join(", ")}`);
    }
    const summary = own[0].case === "";
    if (!summary && cases.length === 1) {
      warnings.push(`dataset ${name} has one case: the bootstrap keeps it fixed`);
    }
    return {
      name,
      cases,
      summary,
      subject: Uint32Array.from(names, (n) => number.get(n)!),
      subjects: list.length,
    };
  });
  const home = new Map(datasets.map((d, i) => [d.name, i]));
  const caseAt = datasets.map((d) => new Map(d.cases.map((c, i) => [c, i])));
  const table = new Map<string, Column>(), counts = new Map<Column, Float64Array[]>();
  let repeats = 0;
  for (const row of rows) {
    const d = home.get(row.dataset)!;
    const key = [row.dataset, row.metric, row.part].join("\u001e");
    let column = table.get(key);
    if (!column) {
      const name = [row.dataset, row.metric, row.part].filter(Boolean).join(" · ");
      const matrix = () => datasets[d].cases.map(() => new Float64Array(methods.length));
      column = {
        name,
        dataset: d,
        metric: row.metric,
        part: row.part,
        group: row.group,
        direction: known.get(row.metric.toLowerCase())!,
        values: matrix(),
      };
      table.set(key, column);
      counts.set(column, matrix());
    }
    if (column.group !== row.group) {
      throw new UserError(
        `${row.where}: ${column.name} is in group "${column.group}" and "${row.group}"; give it one group`,
      );
    }
    if (row.value === null) continue;
    const c = caseAt[d].get(row.case)!, m = at.get(row.method)!;
    column.values[c][m] += row.value;
    if (counts.get(column)![c][m]++) repeats++;
  }
  const columns = [...table.values()].sort((a, b) =>
    compareNames(a.group, b.group) || a.dataset - b.dataset || compareNames(a.name, b.name)
  );
  for (const column of columns) {
    column.values.forEach((row, c) => {
      for (let m = 0; m < row.length; m++) row[m] /= counts.get(column)![c][m] || NaN;
    });
  }
  if (methods.length < 2) warnings.push(`only one method (${methods[0]}): there is nothing to compare`);
  return { track, methods, datasets, columns, table: datasets.every((d) => d.summary), repeats, warnings };
}

/** @throws UsageError where cases are to be resampled and there are none */
export function checkLevel(all: readonly Competition[], level: string | undefined): void {
  const table = all.find((c) => c.table);
  if (!table || level !== "cases") return;
  throw new UsageError(
    `rank: --resample cases: ${
      all.length > 1 ? `track ${table.track}` : "the table"
    } has only rows without a case, dataset summaries; give --resample datasets`,
  );
}

export type Missing =
  | { kind: "worst" | "available" | "complete" | "none" }
  | { kind: "fill"; values: ReadonlyMap<string, number> };

/** Parses `--missing`. A fill may differ per metric: `fill:0`, `fill:DSC=0,HD95=374`. */
export function parseMissing(text: string | undefined): Missing {
  if (!text) return { kind: "none" };
  if (text === "worst" || text === "available" || text === "complete") return { kind: text };
  const values = new Map<string, number>();
  for (const pair of text.startsWith("fill:") ? text.slice(5).split(",") : [""]) {
    const [metric, value] = pair.includes("=") ? pair.split("=") : ["*", pair];
    if (!value || !Number.isFinite(Number(value))) {
      throw new UsageError(
        `rank: --missing is "${text}"; write worst, available, complete, fill:0 or fill:DSC=0,HD95=374`,
      );
    }
    values.set(metric.toLowerCase(), Number(value));
  }
  return { kind: "fill", values };
}

/** The values missing in a competition, each named once; blocks that no method has do not count. */
export function listMissing({ columns, datasets, methods }: Competition): string[] {
  return columns.flatMap((column) =>
    column.values.flatMap((row, c) => {
      const absent = methods.filter((_, m) => Number.isNaN(row[m]));
      const place = [column.name, datasets[column.dataset].cases[c]].filter(Boolean).join(" · ");
      return absent.length < methods.length ? absent.map((m) => `${m} on ${place}`) : [];
    })
  );
}

/** Empty blocks (no method has a value) per competition. */
export const emptyBlocks = (c: Competition): number =>
  c.columns.reduce((s, column) => s + column.values.filter((row) => row.every(Number.isNaN)).length, 0);

/** Number of missing values. @throws UserError that lists them when there are some and no policy was chosen. */
export function checkMissing(all: readonly Competition[], missing: Missing, names: string): number {
  const gaps = all.flatMap((c) => listMissing(c).map((g) => all.length > 1 ? `${c.track}: ${g}` : g));
  if (!gaps.length || missing.kind !== "none") return gaps.length;
  const list = `${gaps.slice(0, 8).join("; ")}${gaps.length > 8 ? "; ..." : ""}`;
  throw new UserError(
    `${names}: ${gaps.length} values are missing (${list}); choose --missing worst, fill:V, available or complete`,
  );
}
