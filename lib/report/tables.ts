/** Tables as plain data, printed as Markdown, HTML, LaTeX (booktabs) or CSV. */
import { escape as escapeHtml } from "./html.ts";

/** A cell: text, or text that is the best or the second of its column. */
export type Cell = string | { text: string; mark: "best" | "second" };

export interface Table {
  title: string;
  note?: string;
  header: string[];
  rows: Cell[][];
}

const text = (cell: Cell) => typeof cell === "string" ? cell : cell.text;
const mark = (cell: Cell) => typeof cell === "string" ? "" : cell.mark;

/** Escapes text for LaTeX. */
function escapeTex(s: string): string {
  const words: Record<string, string> = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "–": "--",
    "·": "$\\cdot$",
    "→": "$\\rightarrow$",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
  };
  return s.replace(/[\\~^–·→<>&%$#_{}]/g, (c) => words[c] ?? `\\${c}`).replace(/\s+/g, " ");
}

/** A Markdown table under its title; best bold, second in italics. */
export function markdown({ title, note, header, rows }: Table): string {
  const escape = (s: string) => s.replace(/[\\|`*_<>\[\]]/g, "\\$&").replace(/\s+/g, " ");
  const show = (cell: Cell) => {
    const s = escape(text(cell));
    return mark(cell) === "best" ? `**${s}**` : mark(cell) === "second" ? `*${s}*` : s;
  };
  const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
  const body = [
    line(header.map(escape)),
    line(header.map(() => "---")),
    ...rows.map((row) => line(row.map(show))),
  ];
  return [`### ${escape(title)}`, "", ...(note ? [note, ""] : []), ...body, ""].join("\n");
}

/** An HTML table with a caption. */
export function html({ title, note, header, rows }: Table): string {
  const show = (cell: Cell) => `<td${mark(cell) && ` class="${mark(cell)}"`}>${escapeHtml(text(cell))}</td>`;
  const head = header.map((h) => `<th scope="col">${escapeHtml(h)}</th>`).join("");
  const body = rows.map((row) => `<tr>${row.map(show).join("")}</tr>`).join("\n");
  const caption = `<caption>${escapeHtml(title)}${
    note ? ` <small>${escapeHtml(note)}</small>` : ""
  }</caption>`;
  return `<div class="wide"><table>${caption}\n<thead><tr>${head}</tr></thead>\n<tbody>\n${body}\n</tbody></table></div>\n`;
}

/** A booktabs tabular; best `\textbf`, second `\underline`. */
export function latex({ title, header, rows }: Table): string {
  const show = (cell: Cell) => {
    const s = escapeTex(text(cell));
    return mark(cell) === "best" ? `\\textbf{${s}}` : mark(cell) === "second" ? `\\underline{${s}}` : s;
  };
  const line = (cells: string[]) => `${cells.join(" & ")} \\\\`;
  return [
    `% ${escapeTex(title)}`,
    `\\begin{tabular}{l${"r".repeat(header.length - 1)}}`,
    "\\toprule",
    line(header.map(escapeTex)),
    "\\midrule",
    ...rows.map((row) => line(row.map(show))),
    "\\bottomrule",
    "\\end{tabular}",
    "",
  ].join("\n");
}

/** RFC 4180 lines. */
export function csv(header: readonly string[], rows: readonly (string | number | null)[][]): string {
  const field = (v: string | number | null) => {
    const s = v === null || Number.isNaN(v) ? "" : String(v);
    return /[",\r\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s;
  };
  return [header, ...rows].map((row) => row.map(field).join(",") + "\n").join("");
}
