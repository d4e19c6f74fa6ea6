/** Attention inside windows with a relative position bias and a mask (Swin). */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/**
 * softmax(q k^T / sqrt d + bias + mask) v per window and head.
 * @param qkv `[windows * tokens][3 * heads * d]`: q, k, v, each head by head
 * @param table `[(2 * edge - 1)^3][heads]` of biases by relative position in a window of `edge`^3 tokens
 * @param tokens per window; fewer than `edge`^3 use the first rows of the published index
 * @param regions `[windows of a sample][tokens]`: pairs of two regions get -100; none: no mask
 * @returns `[windows * tokens][heads * d]`
 */
export function windowAttention(
  qkv: Tensor,
  table: Tensor,
  tokens: number,
  edge: number,
  regions: Uint8Array = new Uint8Array(0),
): Tensor {
  const heads = table.channels;
  const c = qkv.channels / 3;
  if (table.rows !== (2 * edge - 1) ** 3 || c % heads) {
    throw new Error(
      `windowAttention: a table of ${table.rows} x ${heads} does not fit windows of ${edge} and ${c} channels`,
    );
  }
  const shape = [qkv.rows / tokens, tokens, heads, c / heads, edge, regions, regions.length] as const;
  const n = native();
  const y = new Tensor(n.vx_window_attention(qkv.handle, table.handle, ...shape), qkv.rows, c);
  return record(y, [qkv, table], (dy) => {
    const dtable = Tensor.full(0, table.rows, heads);
    const dqkv = n.vx_window_attention_grad(qkv.handle, table.handle, dy.handle, dtable.handle, ...shape);
    return [new Tensor(dqkv, qkv.rows, 3 * c), dtable];
  });
}
