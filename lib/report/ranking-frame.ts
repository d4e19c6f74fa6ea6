/** What the figures of a ranking share: names, colours, the matrix of cells. */
import * as Plot from "@observablehq/plot";
import type { TrackResult } from "../eval/ranking.ts";
import { svg } from "./figure.ts";

/** A standalone SVG with the sentence that explains it. */
export interface Figure {
  svg: string;
  caption: string;
}

export const PALETTE = ("#0072b2 #d55e00 #009e73 #cc79a7 #e69f00 #56b4e9 #7f3b08 #542788 #1b7837 #b2182b " +
  "#35978f #8c510a #c51b7d #4d9221 #2166ac #fdae61 #5e4fa2 #878787 #a6761d #00441b").split(" ");
export const WIDTH = 680;

/** What every figure of one track shares. */
export interface Frame {
  track: TrackResult;
  /** Methods, best first. */
  methods: string[];
  colour: { domain: string[]; range: string[] };
  /** Left margin that holds the longest method name. */
  left: number;
}

export const room = (names: readonly string[]) =>
  Math.min(260, 24 + 7 * Math.max(4, ...names.map((n) => n.length)));
/** Long names are cut for an axis; the tables hold them whole. */
export const short = (name: string) => name.length > 34 ? `${name.slice(0, 32)}…` : name;
export const places = (k: number) => Array.from({ length: k }, (_, i) => i + 1);

/** A matrix of cells with their text; `value` 0..1 gives the shade. */
export function matrix(
  cells: { x: string; y: string; value: number; text: string }[],
  xs: string[],
  ys: string[],
  options: { xLabel?: string; yLabel?: string; scheme?: Plot.ColorScheme },
): string {
  const bottom = Math.min(200, 20 + 6 * Math.max(...xs.map((x) => short(x).length)));
  const slanted = xs.some((x) => x.length * 6.5 > (WIDTH - room(ys)) / xs.length);
  return svg({
    width: WIDTH,
    height: 40 + ys.length * 24 + (slanted ? bottom : 30),
    marginLeft: room(ys.map(short)),
    marginBottom: slanted ? bottom : 35,
    x: { domain: xs, tickRotate: slanted ? -60 : 0, tickFormat: short, label: options.xLabel ?? null },
    y: { domain: ys, tickFormat: short, label: options.yLabel ?? null },
    color: { scheme: options.scheme ?? "Blues", domain: [0, 1.4], type: "linear" },
    marks: [
      Plot.cell(cells, { x: "x", y: "y", fill: "value", inset: 0.5 }),
      Plot.text(cells, { x: "x", y: "y", text: "text", fontSize: xs.length > 14 ? 8 : 10 }),
    ],
  });
}
