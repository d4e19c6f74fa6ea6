/** The end of a transformer branch: LayerScale, DropPath and the sum with the residual stream. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor, volume } from "../tensor.ts";

/**
 * x + keep[sample] * gamma * branch.
 * @param x `[rows][c]` on a layout
 * @param branch of x's shape
 * @param gamma `[c]`
 * @param keep one factor per sample: 0 or 1 / (1 - p) of DropPath, 1 without
 */
export function layerScale(x: Tensor, branch: Tensor, gamma: Tensor, keep: Float32Array): Tensor {
  const { grid, side } = x.space;
  const n = native();
  const tail = [grid.handle, volume(side), x.channels, keep, keep.length] as const;
  const y = new Tensor(
    n.vx_layer_scale(x.handle, branch.handle, gamma.handle, ...tail),
    x.rows,
    x.channels,
    x.layout,
  );
  const wants = [x, branch, gamma].map(needsGradient);
  return record(y, [x, branch, gamma], (dy) => [
    wants[0] ? dy : null,
    wants[1]
      ? new Tensor(
        n.vx_layer_scale_grad_branch(dy.handle, gamma.handle, ...tail),
        x.rows,
        x.channels,
        x.layout,
      )
      : null,
    wants[2]
      ? new Tensor(n.vx_layer_scale_grad_gamma(dy.handle, branch.handle, ...tail), 1, x.channels)
      : null,
  ]);
}
