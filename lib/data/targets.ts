/** What image tasks learn and predict: labels.csv (`case,label`) and predictions.csv (`case,p_0,p_1` or `case,value`). */
import { UserError } from "../errors.ts";
import { parseCsv } from "./csv.ts";

export type ImageTask = "classification" | "regression";

/** Columns of a CSV file by case; the first column is `case`. @throws UserError naming file and line */
function readTable(file: string): { names: string[]; rows: Map<string, { line: number; values: number[] }> } {
  let text: string;
  try {
    text = Deno.readTextFileSync(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UserError(
      `${file}: there is no such file; image tasks read one line "case,label" per case from it`,
    );
  }
  const [header, ...body] = parseCsv(text.replace(/^\uFEFF/, ""), file);
  if (header?.fields[0] !== "case" || header.fields.length < 2) {
    throw new UserError(
      `${file}:1: the header is "${header?.fields.join(",") ?? ""}"; it must be like case,label`,
    );
  }
  const rows = new Map<string, { line: number; values: number[] }>();
  for (const { line, fields } of body) {
    const [id, ...rest] = fields;
    if (fields.length !== header.fields.length) {
      throw new UserError(
        `${file}:${line}: ${fields.length} fields where the header has ${header.fields.length}`,
      );
    }
    if (rows.has(id)) throw new UserError(`${file}:${line}: case "${id}" is there twice; keep one line`);
    const values = rest.map((field) => field === "" ? NaN : Number(field));
    const odd = values.findIndex((v) => !Number.isFinite(v));
    if (odd >= 0) {
      throw new UserError(
        `${file}:${line}: ${header.fields[odd + 1]} of case "${id}" is "${rest[odd]}"; it must be a number`,
      );
    }
    rows.set(id, { line, values });
  }
  if (rows.size === 0) {
    throw new UserError(`${file}: there is no case in it; write one line "case,label" per case`);
  }
  return { names: header.fields.slice(1), rows };
}

/**
 * labels.csv: the target of each case. A classification has whole numbers from 0, a regression any number.
 * @throws UserError naming file, line and value
 */
export function readTargets(file: string, task: ImageTask): Map<string, number> {
  const { names, rows } = readTable(file);
  const column = names.indexOf("label");
  if (column < 0) {
    throw new UserError(`${file}:1: the header is "case,${names.join(",")}"; it needs a column label`);
  }
  for (const [id, { line, values }] of rows) {
    const value = values[column];
    if (task === "classification" && (!Number.isInteger(value) || value < 0)) {
      throw new UserError(
        `${file}:${line}: label of case "${id}" is ${value}; classes are whole numbers from 0 (--task regression takes any)`,
      );
    }
  }
  return new Map([...rows].map(([id, { values }]) => [id, values[column]]));
}

/** What was predicted for a case: probabilities in the order of `labels`, or one value. */
export interface Predictions {
  task: ImageTask;
  /** Class values of the columns `p_<label>`; empty in a regression. */
  labels: number[];
  cases: Map<string, number[]>;
}

/** Text of predictions.csv. */
export function formatPredictions({ task, labels, cases }: Predictions): string {
  const names = task === "classification" ? labels.map((label) => `p_${label}`) : ["value"];
  const rows = [...cases].map(([id, values]) => [id, ...values.map((v) => Number(v.toPrecision(7)))]);
  return [["case", ...names], ...rows].map((row) => row.join(",") + "\n").join("");
}

/** Reads predictions.csv. @throws UserError naming file and line */
export function readPredictions(file: string): Predictions {
  const { names, rows } = readTable(file);
  const cases = new Map([...rows].map(([id, { values }]) => [id, values]));
  if (names.join() === "value") return { task: "regression", labels: [], cases };
  const labels = names.map((name) => Number(name.match(/^p_(\d+)$/)?.[1] ?? NaN));
  if (labels.length < 2 || labels.some(Number.isNaN)) {
    throw new UserError(
      `${file}:1: the header is "case,${names.join(",")}"; it must be case,p_0,p_1 or case,value`,
    );
  }
  return { task: "classification", labels, cases };
}
