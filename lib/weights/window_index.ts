/** The buffer that SwinUNETR keeps beside its bias tables: strict loaders ask for it, networks can compute it. */

/**
 * Row of the bias table for each pair of tokens of a window of `edge`^3, `[edge^3][edge^3]` in C order: the three offsets,
 * each raised by edge - 1, as a number to the base 2 edge - 1 (Liu et al. 2021 for three axes; MONAI).
 */
export function relativePositionIndex(edge: number): BigInt64Array {
  const tokens = edge ** 3;
  const base = 2 * edge - 1;
  const out = new BigInt64Array(tokens * tokens);
  const place = (t: number) => [Math.floor(t / edge ** 2), Math.floor(t / edge) % edge, t % edge];
  for (let a = 0; a < tokens; a++) {
    const from = place(a);
    for (let b = 0; b < tokens; b++) {
      out[a * tokens + b] = BigInt(place(b).reduce((sum, v, d) => sum * base + from[d] - v + edge - 1, 0));
    }
  }
  return out;
}

/** Edge of the window whose bias table has `rows` rows, (2 edge - 1)^3. */
export function windowEdge(rows: number): number {
  return (Math.round(Math.cbrt(rows)) + 1) / 2;
}
