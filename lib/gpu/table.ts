/** The page of `deno task gpu-check`. */

/** A result: which stage it is of, on which card, and its values. */
export type Row = { stage: string; card: string } & Record<string, unknown>;

const TITLES: Record<string, string> = {
  card: "Card",
  fragments: "Layouts of warp matrices, as the emulation assumes them",
  parity: "Ops against the CPU",
  truth: "Ten steps against the CPU",
  sanitizer: "compute-sanitizer on the small cases",
  kernel: "Convolutions 3^3",
  product: "Linear layers, our kernel and cuBLASLt",
  step: "Training steps",
  loader: "The loader beside the steps",
  torch: "PyTorch on the same card",
  ratio: "Steps beside the fastest PyTorch",
};

/** A value in a table cell. */
function cell(value: unknown): string {
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : value.toPrecision(3);
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return `${value.length} values, last ${cell(value.at(-1))}`;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** Markdown: one table per stage, with the columns that its rows have. */
export function markdown(rows: readonly Row[]): string {
  const parts = [`# ${rows[0].card}`, "Made by `deno task gpu-check`."];
  for (const stage of new Set(rows.map((row) => row.stage))) {
    const own = rows.filter((row) => row.stage === stage);
    const columns = [...new Set(own.flatMap(Object.keys))].filter((key) => key !== "stage" && key !== "card");
    const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
    const body = own.map((row) => line(columns.map((key) => cell(row[key]))));
    parts.push(
      `## ${TITLES[stage] ?? stage}`,
      [line(columns), line(columns.map(() => "---")), ...body].join("\n"),
    );
  }
  return parts.join("\n\n") + "\n";
}
