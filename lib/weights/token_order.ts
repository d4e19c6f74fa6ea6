/**
 * The order in which token networks flatten their grid. nnssl's masked autoencoders use (d1, d0, d2), everything else
 * (d0, d1, d2); weights of one order give other features in the other (defects D05, D06). The change is exact and its own
 * inverse.
 */
import { UserError } from "../errors.ts";

/** The first two axes of the token grid as flattened. */
export type TokenOrder = "d0d1d2" | "d1d0d2";

/** Channels per head by width: Primus S, B, M, L. */
const HEAD: Record<number, number> = { 396: 66, 792: 66, 864: 72, 1056: 66 };

/**
 * Changes the order of tensor `name` of a trunk (`eva.*`, `decoder.*`) in place: swaps the first two axes of the position
 * table, and in each head of q and k the channels that turn with the first axis with those of the second.
 * @param data values of `shape`, C order
 * @param head channels per head; without: those of Primus
 * @throws UserError for a position table that is no cube, or a width that is not known
 */
export function swapTokenOrder(
  name: string,
  shape: readonly number[],
  data: Float32Array,
  head?: number,
): Float32Array {
  if (/^(eva|decoder)\.pos_embed$/.test(name)) {
    const [, tokens, width] = shape;
    const side = Math.round(Math.cbrt(tokens));
    if (side ** 3 !== tokens) {
      throw new UserError(
        `${name} has ${tokens} positions, which are no cube; only position tables of cubic patches change their order`,
      );
    }
    const row = (a: number, b: number) =>
      data.subarray((a * side + b) * side * width, (a * side + b + 1) * side * width);
    for (let a = 0; a < side; a++) for (let b = 0; b < a; b++) exchange(row(a, b), row(b, a));
  } else if (/^(eva|decoder)\.blocks\.\d+\.attn\.(q_proj\.(weight|bias)|k_proj\.weight)$/.test(name)) {
    const [rows] = shape;
    const size = head ?? HEAD[rows];
    if (!size) throw new UserError(`${name} has ${rows} rows, which is the width of no Primus`);
    const axis = size / 3;
    const columns = data.length / rows;
    for (let first = 0; first < rows; first += size) {
      const part = (n: number) =>
        data.subarray((first + n * axis) * columns, (first + (n + 1) * axis) * columns);
      exchange(part(0), part(1));
    }
  }
  return data;
}

function exchange(a: Float32Array, b: Float32Array): void {
  const copy = a.slice();
  a.set(b);
  b.set(copy);
}
