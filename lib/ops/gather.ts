/** Rows in another order, with gaps: windows, shifts, padding, cropping, transposes. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Layout, Tensor } from "../tensor.ts";

/** Which row each row of the result is (-1: zeros), and which row of the result each row became (-1: none). */
export interface Rows {
  index: Int32Array;
  inverse: Int32Array;
}

/** The plan that takes `index` from `rows` rows. @throws when a row is taken twice */
export function plan(index: Int32Array, rows: number): Rows {
  const inverse = new Int32Array(rows).fill(-1);
  index.forEach((from, to) => {
    if (from < 0) return;
    if (inverse[from] >= 0) throw new Error(`gather: row ${from} is taken twice`);
    inverse[from] = to;
  });
  return { index, inverse };
}

/** The plan that puts rows back; what was not taken becomes zeros. */
export function back({ index, inverse }: Rows): Rows {
  return { index: inverse, inverse: index };
}

/** `[rows][c]` -> `[index.length][c]`, on `layout`. */
export function gatherRows(x: Tensor, { index, inverse }: Rows, layout?: Layout): Tensor {
  if (x.rows !== inverse.length) {
    throw new Error(`gather: a plan for ${inverse.length} rows meets ${x.rows}`);
  }
  const n = native();
  const take = (t: Tensor, list: Int32Array) =>
    n.vx_gather_rows(t.handle, t.rows, x.channels, list, list.length);
  const y = new Tensor(take(x, index), index.length, x.channels, layout);
  return record(y, [x], (dy) => [new Tensor(take(dy, inverse), x.rows, x.channels, x.layout)]);
}

/** `[rows][c]` -> `[c][rows]`. */
export function transpose(x: Tensor): Tensor {
  const { rows, channels } = x;
  const index = Int32Array.from({ length: x.length }, (_, i) => i % rows * channels + Math.floor(i / rows));
  const column = (t: Tensor, list: Int32Array, r: number, c: number) =>
    new Tensor(native().vx_gather_rows(t.handle, t.length, 1, list, list.length), r, c);
  const { inverse } = plan(index, x.length);
  return record(column(x, index, channels, rows), [x], (dy) => [column(dy, inverse, rows, channels)]);
}
