/** Layer normalisation over the channels of each row. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/**
 * gamma * (x - mean) / sqrt(variance + eps) + beta, mean and biased variance over the channels of a row.
 * @param x `[rows][c]`, whose layout the result keeps
 * @param gamma `[c]`
 * @param beta `[c]`
 * @param eps 1e-5 in transformers, 1e-6 between the transposed convolutions of Primus
 * @returns of x's shape; may be dropped
 */
export function layerNorm(x: Tensor, gamma: Tensor, beta: Tensor, eps = 1e-5): Tensor {
  const n = native();
  const { rows, channels: c, layout } = x;
  const statistics = new Tensor(n.vx_layer_norm_statistics(x.handle, rows, c, eps), rows, 2);
  const make = () => n.vx_layer_norm(x.handle, statistics.handle, gamma.handle, beta.handle, rows, c);
  const y = new Tensor(make, rows, c, layout);
  const wants = [x, gamma, beta].map(needsGradient);
  return record(y, [x, gamma, beta], (dy) => {
    using affine = new Tensor(
      n.vx_layer_norm_grad_affine(x.handle, statistics.handle, dy.handle, rows, c),
      2,
      c,
    );
    const half = (from: number) => new Tensor(n.vx_columns(affine.handle, 1, 2 * c, from, c), 1, c);
    return [
      wants[0]
        ? new Tensor(
          n.vx_layer_norm_grad_input(x.handle, statistics.handle, gamma.handle, dy.handle, rows, c),
          rows,
          c,
          layout,
        )
        : null,
      wants[1] ? half(c) : null,
      wants[2] ? half(0) : null,
    ];
  });
}
