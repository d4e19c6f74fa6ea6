/** Adaptive average pooling, windows as torch.nn.AdaptiveAvgPool3d, also to a larger side. */
import { type Grid, type Side, type Tensor } from "../tensor.ts";
import { axisMatrix, dense, separable, windows } from "./separable.ts";

/**
 * Means over windows that tile the volume, uneven where `out` does not divide the side.
 * @param x dense `[n][z][y][x][c]`
 * @param out side of the result; larger than that of x repeats and mixes neighbours
 * @returns dense `[n][out z][out y][out x][c]` on the grid of x, in its type
 */
export function adaptivePool(x: Tensor, out: Side): Tensor {
  const { n, side } = dense(x);
  const [z, y, w] = out.map((o, d) => axisMatrix(o, side[d], windows(o, side[d])));
  const grid: Grid = x.space.grid;
  return separable(x, Array.from({ length: n }, () => [z, y, w] as const), out, grid, x.dtype);
}
