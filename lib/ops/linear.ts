/** The linear layer on rows. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/**
 * x * weight^T + bias.
 * @param x `[rows][in]`, f32 or bf16, a matrix or a volume tensor (whose layout the result keeps)
 * @param weight `[out][in]`
 * @param bias `[out]` or null
 * @param centred a norm over the rows follows, see `biasGradient`
 * @returns `[rows][out]`
 */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null, centred = false): Tensor {
  const [cIn, cOut] = [x.channels, weight.rows];
  if (weight.channels !== cIn) {
    throw new Error(`linear: weight takes ${weight.channels} channels, the input has ${cIn}`);
  }
  const n = native();
  const shape = [x.rows, cIn, cOut] as const;
  const y = new Tensor(
    n.vx_linear(x.handle, weight.handle, bias?.handle ?? 0, ...shape),
    x.rows,
    cOut,
    x.layout,
  );
  const wants = [x, weight, bias].map(needsGradient);
  return record(y, [x, weight, bias], (dy) => [
    wants[0]
      ? new Tensor(n.vx_linear_grad_input(dy.handle, weight.handle, ...shape), x.rows, cIn, x.layout)
      : null,
    wants[1] ? new Tensor(n.vx_linear_grad_weight(x.handle, dy.handle, ...shape), cOut, cIn) : null,
    wants[2] ? biasGradient(dy, centred) : null,
  ]);
}

/**
 * Gradient of a bias from that of the output.
 * @param centred a norm follows that takes the mean away: the gradient is zero, and is not summed to rounding
 */
export function biasGradient(dy: Tensor, centred = false): Tensor {
  const c = dy.channels;
  return centred ? Tensor.full(0, 1, c) : new Tensor(native().vx_sum_rows(dy.handle, dy.rows, c), 1, c);
}

/** a * b of matrices `[m][k]` and `[k][n]`, f32. */
export function product(a: Tensor, b: Tensor): Tensor {
  const n = native();
  const shape = [a.rows, b.channels, a.channels] as const;
  if (a.channels !== b.rows) throw new Error(`product: ${a.channels} columns meet ${b.rows} rows`);
  return record(
    new Tensor(n.vx_linear_grad_input(a.handle, b.handle, ...shape), a.rows, b.channels),
    [a, b],
    (dy) => [
      new Tensor(n.vx_linear(dy.handle, b.handle, 0, ...shape), a.rows, a.channels),
      new Tensor(n.vx_linear_grad_weight(dy.handle, a.handle, ...shape), b.rows, b.channels),
    ],
  );
}
