/** Normalisation of each column of a matrix over its rows. */
import { record } from "../autograd.ts";
import { onCard } from "../device.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";
import { silu } from "./activation.ts";
import { normalise } from "./norm.ts";

/**
 * (x - mean) / sqrt(variance + eps) per channel over the rows, biased variance of this batch only: BatchNorm1d of
 * PyTorch in training, without affine and running statistics (last layer of the projectors).
 * @param x `[rows][c]`, at least 2 rows; a volume tensor keeps its layout
 */
export function batchNorm(x: Tensor, eps = 1e-5): Tensor {
  if (x.rows < 2) throw new Error("batchNorm: one row has no variance; use a batch of 2 or more");
  return normalise(x, null, null, null, 1, eps, [0, x.rows]);
}

/** silu(batchNorm(x)) in one pass; what lies between is not kept. */
export function batchNormSilu(x: Tensor, eps = 1e-5): Tensor {
  if (onCard() || x.rows < 2) return silu(batchNorm(x, eps));
  const n = native();
  const shape = [x.rows, x.channels] as const;
  const statistics = new Tensor(n.vx_norm_statistics(x.handle, 0, ...shape, eps), 2, x.channels);
  const like = (handle: number) => new Tensor(handle, ...shape, x.layout);
  return record(
    like(n.vx_norm_silu(x.handle, statistics.handle, ...shape)),
    [x],
    (dy) => [like(n.vx_norm_silu_grad(x.handle, dy.handle, statistics.handle, ...shape))],
  );
}
