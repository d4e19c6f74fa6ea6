/** Attention pooling: the rows of a sample, weighed by a softmax of their scores. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { dtypeNumber, Tensor, volume } from "../tensor.ts";

/**
 * sum over the rows of a sample of softmax(scores) x.
 * @param x `[rows][c]` on a layout, f32 or bf16
 * @param scores `[rows][1]`, f32
 * @returns f32 `[samples][c]`
 */
export function softmaxPool(x: Tensor, scores: Tensor): Tensor {
  const { grid, side } = x.space;
  if (scores.length !== x.rows) throw new Error(`softmaxPool: ${scores.length} scores for ${x.rows} rows`);
  const n = native();
  const rows = [grid.handle, volume(side)] as const;
  const weights = new Tensor(n.vx_softmax_rows(scores.handle, ...rows), x.rows, 1);
  const y = new Tensor(
    n.vx_weighted_sum(x.handle, weights.handle, ...rows, x.channels),
    grid.samples,
    x.channels,
  );
  return record(y, [x, scores], (dy) => {
    const inputs = [dy.handle, x.handle, y.handle, weights.handle] as const;
    return [
      new Tensor(
        n.vx_weighted_sum_grad(dy.handle, weights.handle, ...rows, x.channels, dtypeNumber(x.dtype)),
        x.rows,
        x.channels,
        x.layout,
      ),
      new Tensor(n.vx_softmax_pool_grad_scores(...inputs, ...rows, x.channels), x.rows, 1, scores.layout),
    ];
  });
}
