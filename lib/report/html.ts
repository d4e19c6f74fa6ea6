/** The pieces of a report page: one file, no script, no outside address, readable in print and in the dark. */

/** `text` with the five characters that mean something in HTML escaped. */
export function escape(text: string): string {
  const names: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replaceAll(/[&<>"']/g, (character) => names[character]);
}

const STYLE = `
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6675; --line: #d9dde4; --paper: #fff; --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ec; --soft: #9aa3b2; --line: #363c48; --paper: #14171c; --band: #1b1f26; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; } h2 { margin: 2.5rem 0 .75rem; font-size: 1.15rem; }
p.lead { margin: .25rem 0 0; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .5rem; margin: 1.5rem 0 0; }
dl div { padding: .6rem .8rem; border-radius: .4rem; background: var(--band); overflow-wrap: anywhere; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { padding: .3rem 0; color: var(--soft); font-size: .85rem; }
figure svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: .4rem; color: #1c2330; }
figure img { max-width: 100%; border-radius: .4rem; image-rendering: pixelated; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem .4rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; } thead th { color: var(--soft); font-weight: 600; } tbody tr:nth-child(even) { background: var(--band); }
`;

/** A whole page of `sections` (HTML) under `title` and one `lead` sentence (texts). */
export function htmlPage(title: string, lead: string, sections: string[]): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title><style>${STYLE}</style></head>
<body><h1>${escape(title)}</h1><p class="lead">${escape(lead)}</p>
${sections.filter(Boolean).join("\n")}
</body></html>
`;
}

/** A headed section of `content` (HTML); nothing when there is none. */
export function section(heading: string, content: string): string {
  return content && `<h2>${escape(heading)}</h2>\n${content}`;
}

/** A table of texts under column `heads`. */
export function table(heads: string[], rows: string[][]): string {
  const cells = (tag: string, row: string[]) =>
    row.map((text) => `<${tag}>${escape(text)}</${tag}>`).join("");
  const body = rows.map((row) => `<tr>${cells("td", row)}</tr>`).join("\n");
  return `<div class="table"><table><thead><tr>${
    cells("th", heads)
  }</tr></thead>\n<tbody>${body}</tbody></table></div>`;
}

/** Figures (inline `<svg>` or `<img>`, HTML) with captions (texts), two in a row where there is room. */
export function figures(items: { content: string; caption: string }[]): string {
  const one = ({ content, caption }: { content: string; caption: string }) =>
    `<figure>${content}<figcaption>${escape(caption)}</figcaption></figure>`;
  return items.length ? `<div class="figures">${items.map(one).join("\n")}</div>` : "";
}

/** A PNG file as an `<img>` that holds its own bytes. */
export function image(png: Uint8Array, alternative: string): string {
  let binary = "";
  for (let at = 0; at < png.length; at += 8192) binary += String.fromCharCode(...png.subarray(at, at + 8192));
  return `<img alt="${escape(alternative)}" src="data:image/png;base64,${btoa(binary)}">`;
}

/** Short labelled values, as tiles. */
export function tiles(values: [label: string, value: string][]): string {
  const one = ([label, value]: [string, string]) =>
    `<div><dt>${escape(label)}</dt><dd>${escape(value)}</dd></div>`;
  return values.length ? `<dl>${values.map(one).join("")}</dl>` : "";
}
