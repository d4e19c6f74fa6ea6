/** Softmax attention within each sample. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor, volume } from "../tensor.ts";

/**
 * softmax(q k^T / sqrt(h)) v for each sample and head of h = c / heads channels; the scores are never stored.
 * @param q `[queries][c]` on a layout: a query attends to the keys of its own sample
 * @param k `[keys][c]` on a layout of as many samples, which may be that of q
 * @param v of k's shape
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, heads: number): Tensor {
  const c = q.channels;
  const n = native();
  const rows = ({ space }: Tensor) => [space.grid.handle, volume(space.side)] as const;
  const tail = [...rows(q), ...rows(k), heads, c] as const;
  const statistics = Tensor.full(0, q.rows, heads);
  const inputs = [q.handle, k.handle, v.handle, statistics.handle] as const;
  const y = new Tensor(n.vx_attention(...inputs, ...tail), q.rows, c, q.layout);
  return record(y, [q, k, v], (dy) => {
    const gradients = [q, k, v].map((x) => Tensor.full(0, x.rows, c, x.layout, q.dtype));
    const [dq, dk, dv] = gradients.map((g) => g.handle);
    n.vx_attention_grad(...inputs, y.handle, dy.handle, dq, dk, dv, ...tail);
    return gradients;
  });
}
