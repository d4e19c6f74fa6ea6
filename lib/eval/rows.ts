/** Metric rows from JSON lines or CSV, checked one by one; every error names `file:line`. */
import { parseCsv } from "../data/csv.ts";
import { nearest, UsageError, UserError } from "../errors.ts";

/** One observation. `value` null means missing; without `case` the row is the summary of a dataset. */
export interface Row {
  where: string;
  track: string;
  method: string;
  dataset: string;
  metric: string;
  group: string;
  /** What splits a metric into columns of its own: structure label, number of training labels. */
  part: string;
  case: string;
  subject: string;
  /** Fold, seed and draw: repeats of one case, averaged before anything else. */
  repeat: string;
  value: number | null;
}

const LARGER =
  "DSC Dice NSD IoU Jaccard BalAcc balanced_accuracy accuracy AUROC AUC AP macro_AP F1 precision recall sensitivity specificity " +
  "retrieval_accuracy correlation R2";
const SMALLER =
  "HD HD95 ASSD ASD MASD MAE MSE RMSE NLL ECE Brier loss error alignment_error seconds peak_memory_bytes";

/** Direction per metric name (lower case): 1 when larger is better, -1 when smaller is. */
export function directions(extra = ""): Map<string, 1 | -1> {
  const known = new Map<string, 1 | -1>();
  for (const name of LARGER.split(" ")) known.set(name.toLowerCase(), 1);
  for (const name of SMALLER.split(" ")) known.set(name.toLowerCase(), -1);
  for (const pair of extra.split(",").filter(Boolean)) {
    const [, name, way] = pair.match(/^(.+)=(max|min)$/) ?? [];
    if (!name) {
      throw new UsageError(
        `rank: --direction has "${pair}"; write METRIC=max or METRIC=min, separated by commas`,
      );
    }
    known.set(name.toLowerCase(), way === "max" ? 1 : -1);
  }
  return known;
}

const MISSING = /^(|na|nan|null|none|[+-]?inf(inity)?)$/i;
const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** A decimal, or null for empty, NA, NaN, null, inf. @throws UserError for anything else. */
export function readValue(raw: unknown, where: string, field = "value"): number | null {
  if (raw === null || raw === undefined) return null;
  if (typeof raw === "number") return Number.isFinite(raw) ? raw : null;
  const text = typeof raw === "string" ? raw.trim() : JSON.stringify(raw);
  if (typeof raw === "string" && MISSING.test(text)) return null;
  const value = DECIMAL.test(text) && typeof raw === "string" ? Number(text) : NaN;
  if (!Number.isFinite(value)) {
    throw new UserError(
      `${where}: ${field} is "${text.slice(0, 60)}"; write a decimal number, or NA when it is missing`,
    );
  }
  return value;
}

/** One record to a row. `record` holds the fields as read. */
function toRow(record: Record<string, unknown>, where: string): Row & { arch: string } {
  const text = (key: string) => {
    const v = record[key];
    if (v === undefined || v === null) return "";
    if (typeof v === "object") {
      throw new UserError(`${where}: ${key} is ${JSON.stringify(v).slice(0, 60)}; write a name`);
    }
    return String(v);
  };
  for (const key of ["method", "dataset", "metric"]) {
    if (text(key) === "") {
      throw new UserError(`${where}: ${key} is missing; every row needs method, dataset, metric and value`);
    }
  }
  if (!("value" in record)) {
    throw new UserError(`${where}: value is missing; write a number, or null when there is none`);
  }
  const parts = [["label", "label "], ["labels", "labels="]].filter(([k]) => text(k) !== "").map((
    [k, name],
  ) => name + text(k));
  return {
    where,
    track: text("track"),
    arch: text("arch"),
    method: text("method"),
    dataset: text("dataset"),
    metric: text("metric"),
    group: text("group") || text("task") || "all",
    part: parts.join(", "),
    case: text("case"),
    subject: text("subject"),
    repeat: ["fold", "seed", "draw"].map(text).join("\u001f"),
    value: readValue(record.value, where),
  };
}

const RESERVED = ["dataset", "track", "group", "metric"];

/** Records of one file: JSON lines, a long CSV, or a wide table (dataset, then one column per method). */
function* records(
  text: string,
  file: string,
  metric?: string,
): Generator<{ where: string; record: Record<string, unknown> }> {
  text = text.replace(/^\uFEFF/, "");
  if (text.trimStart().startsWith("{")) {
    for (const [i, line] of text.split("\n").entries()) {
      if (line.trim() === "") continue;
      const where = `${file}:${i + 1}`;
      let record: unknown;
      try {
        record = JSON.parse(line);
      } catch {
        throw new UserError(
          `${where}: not a JSON object: ${line.trim().slice(0, 60)}; write one row per line`,
        );
      }
      if (typeof record !== "object" || record === null || Array.isArray(record)) {
        throw new UserError(
          `${where}: not a JSON object: ${line.trim().slice(0, 60)}; write one row per line`,
        );
      }
      yield { where, record: record as Record<string, unknown> };
    }
    return;
  }
  const [header, ...body] = parseCsv(text, file);
  if (!header) return;
  const names = header.fields, top = `${file}:${header.line}`;
  const twice = names.find((n, i) => names.indexOf(n) !== i);
  if (twice !== undefined) {
    throw new UserError(`${top}: the header names "${twice}" twice; name every column once`);
  }
  const long = names.includes("method") || names.includes("value");
  const absent = (long ? ["method", "dataset", "metric", "value"] : ["dataset"]).filter((n) =>
    !names.includes(n)
  );
  if (absent.length) {
    throw new UserError(
      `${top}: the header lacks ${
        absent.join(", ")
      }; write method,dataset,metric,value, or a wide table that begins with dataset`,
    );
  }
  if (!long && !names.includes("metric") && !metric) {
    throw new UserError(
      `${top}: a wide table does not say its metric; add --metric NAME, such as --metric DSC`,
    );
  }
  for (const { line, fields } of body) {
    const where = `${file}:${line}`;
    if (fields.length !== names.length) {
      throw new UserError(
        `${where}: ${fields.length} fields where the header has ${names.length}; quote names that hold a comma`,
      );
    }
    const record: Record<string, unknown> = Object.fromEntries(names.map((n, i) => [n, fields[i]]));
    if (long) yield { where, record };
    else {
      const fixed = {
        metric,
        ...Object.fromEntries(RESERVED.filter((n) => n in record).map((n) => [n, record[n]])),
      };
      for (const method of names.filter((n) => !RESERVED.includes(n))) {
        yield { where, record: { ...fixed, method, value: record[method] } };
      }
    }
  }
}

const identity = (r: Row) =>
  [r.track, r.method, r.dataset, r.case, r.metric, r.part, r.repeat, r.group].join("\u001e");

/**
 * Reads the rows of all `files` and returns them sorted, so that nothing later depends on their order.
 * `metric` names the metric of a wide table; of long rows it keeps that metric only.
 * An architecture is a track where no track is given and one method occurs with several.
 * @throws UserError with file:line for a malformed or duplicate row, an unknown metric, a dataset with and without cases.
 */
export function readRows(
  files: readonly { name: string; text: string }[],
  known: ReadonlyMap<string, 1 | -1>,
  metric?: string,
): Row[] {
  const rows: (Row & { arch: string })[] = [];
  for (const { name, text } of files) {
    for (const { where, record } of records(text, name, metric)) {
      const row = toRow(record, where);
      if (metric && row.metric.toLowerCase() !== metric.toLowerCase()) continue;
      if (!known.has(row.metric.toLowerCase())) {
        const guess = nearest(row.metric.toLowerCase(), [...known.keys()]);
        throw new UserError(
          `${where}: metric "${row.metric}" has no known direction; add --direction ${row.metric}=max or =min (known: ${
            guess ?? [...known.keys()].join(", ")
          })`,
        );
      }
      rows.push(row);
    }
  }
  const names = files.map((f) => f.name).join(", ");
  if (!rows.length) {
    throw new UserError(
      `${names}: there are no rows${metric ? ` of metric ${metric}` : ""}; give one metric row per line`,
    );
  }
  const archs = new Map<string, string>();
  let several = false;
  for (const r of rows) {
    if (r.track || !r.arch) continue;
    several ||= (archs.get(r.method) ?? r.arch) !== r.arch;
    archs.set(r.method, r.arch);
  }
  const seen = new Map<string, Row>(), cased = new Map<string, Row>();
  for (const row of rows) {
    row.track ||= several && row.arch ? row.arch : "all";
    const key = identity({ ...row, group: "" }), first = seen.get(key);
    if (first) {
      throw new UserError(
        `${row.where}: the same track, method, dataset, case, metric, fold and seed as ${first.where} ` +
          `(${
            [row.method, row.dataset, row.case, row.metric].filter(Boolean).join(", ")
          }); keep one of the two`,
      );
    }
    seen.set(key, row);
    const home = `${row.track}\u001e${row.dataset}`, other = cased.get(home);
    if (other && (other.case === "") !== (row.case === "")) {
      throw new UserError(
        `${row.where}: dataset "${row.dataset}" has rows with a case and rows without (${other.where}); give one kind`,
      );
    }
    cased.set(home, other ?? row);
  }
  return rows.map(({ arch: _, ...row }) => ({ row, key: identity(row) }))
    .sort((a, b) => a.key < b.key ? -1 : 1).map((r) => r.row);
}

/** The directions of the metrics that occur, as text for the report. */
export function usedDirections(rows: readonly Row[], known: ReadonlyMap<string, 1 | -1>): string {
  return [...new Set(rows.map((r) => r.metric))].sort()
    .map((m) => `${m}=${known.get(m.toLowerCase())! > 0 ? "max" : "min"}`).join(",");
}

/** SHA-256 of the sorted rows, hexadecimal: the same for any order of the input lines. */
export async function digest(rows: readonly Row[]): Promise<string> {
  const text = rows.map(({ where: _, ...row }) => JSON.stringify(row)).join("\n");
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(hash).toHex();
}

/** The text of a file, or of standard input for `-`. @throws UserError when there is none. */
export async function readText(path: string): Promise<{ name: string; text: string }> {
  if (path === "-") return { name: "stdin", text: await new Response(Deno.stdin.readable).text() };
  try {
    return { name: path, text: await Deno.readTextFile(path) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new UserError(`${path}: there is no such file; name a file of metric rows`);
    }
    if (error instanceof Deno.errors.IsADirectory) {
      throw new UserError(`${path}: this is a folder; name a file of metric rows`);
    }
    throw error;
  }
}
