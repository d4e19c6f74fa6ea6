/** Reconstruction losses. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

const kinds = { mse: 0, l1: 1, huber: 2 } as const;

/**
 * sum w * f(y - target) / (c * sum w + 1e-12): one ratio over the batch, 0 when nothing counts.
 * f: r^2, |r|, or Huber with delta 1 (r^2 / 2 below 1, |r| - 1/2 above).
 * @param y `[rows][c]`; only it gets a gradient
 * @param target of y's shape
 * @param weight `[rows]`, 1 = the voxel counts; null: all count
 * @returns scalar
 */
export function reconstructionLoss(
  y: Tensor,
  target: Tensor,
  weight: Tensor | null,
  kind: keyof typeof kinds,
): Tensor {
  if (y.rows !== target.rows || y.channels !== target.channels) {
    throw new Error("reconstructionLoss: output and target differ in shape");
  }
  const n = native();
  const shape = [y.handle, target.handle, weight?.handle ?? 0, y.rows, y.channels, kinds[kind]] as const;
  const result = new Tensor(n.vx_reconstruction(...shape), 1, 2);
  const loss = new Tensor(n.vx_columns(result.handle, 1, 2, 0, 1), 1, 1);
  const wants = needsGradient(y);
  return record(loss, [y], (dloss) => [
    wants
      ? new Tensor(
        n.vx_reconstruction_grad(dloss.handle, result.handle, ...shape),
        y.rows,
        y.channels,
        y.layout,
      )
      : null,
  ]);
}
