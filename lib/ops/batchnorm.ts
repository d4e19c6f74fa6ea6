/** Normalisation of each column of a matrix over its rows. */
import type { Tensor } from "../tensor.ts";
import { normalise } from "./norm.ts";

/**
 * (x - mean) / sqrt(variance + eps) per channel over the rows, biased variance of this batch only: BatchNorm1d of
 * PyTorch in training, without affine and running statistics (last layer of the projectors, methods.md 3).
 * @param x `[rows][c]`, at least 2 rows; a volume tensor keeps its layout
 */
export function batchNorm(x: Tensor, eps = 1e-5): Tensor {
  if (x.rows < 2) throw new Error("batchNorm: one row has no variance; use a batch of 2 or more");
  return normalise(x, null, null, null, 1, eps, [0, x.rows]);
}
