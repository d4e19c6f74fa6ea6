/** Softmax attention within each sample. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor, volume } from "../tensor.ts";

/**
 * softmax(q k^T / sqrt(h)) v for each sample and head of h = c / heads channels; the scores are never stored.
 * @param q `[rows][c]` on a layout: a row attends to the rows of its own sample
 * @param k of q's shape
 * @param v of q's shape
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, heads: number): Tensor {
  const { grid, side } = q.space;
  const { rows, channels: c, layout } = q;
  const n = native();
  const tail = [grid.handle, volume(side), heads, c] as const;
  const statistics = Tensor.full(0, rows, heads);
  const inputs = [q.handle, k.handle, v.handle, statistics.handle] as const;
  const y = new Tensor(n.vx_attention(...inputs, ...tail), rows, c, layout);
  return record(y, [q, k, v], (dy) => {
    const gradients = [q, k, v].map(() => Tensor.full(0, rows, c, layout, q.dtype));
    const [dq, dk, dv] = gradients.map((g) => g.handle);
    n.vx_attention_grad(...inputs, y.handle, dy.handle, dq, dk, dv, ...tail);
    return gradients;
  });
}
