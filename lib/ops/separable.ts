/**
 * Separable resampling of dense volumes: one small matrix per axis and sample. Alignment and adaptive pooling choose
 * the matrices; the gradient is the same operation with the matrices transposed.
 */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Dtype, dtypeNumber, Grid, type Side, Tensor, volume } from "../tensor.ts";

/** A matrix `[out][side]`, row by row, that acts along one axis. */
export type AxisMatrix = Float32Array;

/** Samples and side of a dense batch. @throws when blocks are missing or a sample has more than one */
export function dense(x: Tensor): { n: number; side: Side } {
  const { grid, side } = x.space;
  if (volume(grid.dims) !== 1 || grid.blocks !== grid.samples) {
    throw new Error(`a dense batch is needed, one block per sample; this grid has ${grid.dims} blocks`);
  }
  return { n: grid.samples, side };
}

/**
 * y[n,p,q,r,:] = sum of z[n][p,i] y[n][q,j] x[n][r,k] times x[n,i,j,k,:].
 * @param x dense `[n][z][y][x][c]`
 * @param matrices per sample the matrices of axes z, y, x, each `[out[d]][side[d]]`
 * @param grid of the result's layout (one block per sample); absent: a matrix
 * @param dtype of the result
 * @returns `[n * out z * out y * out x][c]`
 */
export function separable(
  x: Tensor,
  matrices: readonly (readonly [AxisMatrix, AxisMatrix, AxisMatrix])[],
  out: Side,
  grid?: Grid,
  dtype: Dtype = "f32",
): Tensor {
  const { n, side } = dense(x);
  if (matrices.length !== n) {
    throw new Error(`separable: ${matrices.length} sets of matrices for ${n} samples`);
  }
  const apply = (from: Tensor, weights: Float32Array, input: Side, output: Side, type: Dtype) => {
    const shape = [n, ...input, ...output, x.channels, dtypeNumber(type)] as const;
    return native().vx_separable(from.handle, weights, weights.length, ...shape);
  };
  const y = new Tensor(
    apply(x, pack(matrices), side, out, dtype),
    n * volume(out),
    x.channels,
    grid && { grid, side: out },
  );
  return record(y, [x], (dy) => {
    const turned = matrices.map(([a, b, c]) =>
      [transposed(a, side[0]), transposed(b, side[1]), transposed(c, side[2])] as const
    );
    return [new Tensor(apply(dy, pack(turned), out, side, x.dtype), x.rows, x.channels, x.layout)];
  });
}

function pack(matrices: readonly (readonly AxisMatrix[])[]): Float32Array {
  const parts = [0, 1, 2].flatMap((d) => matrices.map((m) => m[d]));
  const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function transposed(matrix: AxisMatrix, columns: number): AxisMatrix {
  const rows = matrix.length / columns;
  return Float32Array.from(matrix, (_, i) => matrix[(i % rows) * columns + Math.floor(i / rows)]);
}

/** Rows of `side` weights from a list of (output, input, weight) terms, which add up. */
export function axisMatrix(out: number, side: number, terms: Iterable<[number, number, number]>): AxisMatrix {
  const sums = new Float64Array(out * side);
  for (const [o, i, weight] of terms) sums[o * side + i] += weight;
  return Float32Array.from(sums);
}

/** PyTorch's adaptive windows: output o is the mean of inputs floor(o side / out) to ceil((o + 1) side / out) - 1. */
export function* windows(out: number, side: number): Generator<[number, number, number]> {
  for (let o = 0; o < out; o++) {
    const [first, end] = [Math.floor((o * side) / out), Math.ceil(((o + 1) * side) / out)];
    for (let i = first; i < end; i++) yield [o, i, 1 / (end - first)];
  }
}
