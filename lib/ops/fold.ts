/** Batch norm folded into the linear layer before it. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/**
 * The layer that batch norm after a linear layer is on these rows: with `weight` and `centre` of the result,
 * batchNorm(linear(x, weight, bias)) = (x + centre) * weight^T. The variances come from the covariance of x, so the output of
 * the linear layer is never made, and the folded weight can go on into the next layer or onto fewer rows.
 * No gradient flows through `centre`: right where what follows is normalised again, or has none.
 * @param x `[rows][c]`, f32 or bf16
 * @param weight `[o][c]`
 * @param bias `[o]`, which the norm takes out again: its gradient is zero
 * @returns weight `[o][c]`; centre `[c]`, minus the mean row of x
 */
export function fold(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  eps = 1e-5,
): { weight: Tensor; centre: Tensor } {
  const n = native();
  const { rows, channels: c } = x;
  const shape = [c, weight.rows] as const;
  const paired = x.dtype === "bf16";
  using sums = new Tensor(n.vx_sum_rows(x.handle, rows, c), 1, c);
  using mean = new Tensor(n.vx_scale(1 / rows, sums.handle, c), 1, c);
  const centre = new Tensor(n.vx_scale(-1, mean.handle, c), 1, c);
  using covariance = new Tensor(n.vx_covariance(x.handle, mean.handle, rows, c), c, c);
  const along = new Tensor(
    n.vx_fold_along(weight.handle, covariance.handle, ...shape, paired),
    weight.rows,
    c,
  );
  const folded = new Tensor(n.vx_fold(weight.handle, along.handle, ...shape, eps), weight.rows, c);
  record(folded, [x, weight, bias], (g) => {
    const factors = [weight.handle, along.handle, g.handle] as const;
    using spread = new Tensor(n.vx_fold_spread(...factors, rows, ...shape, eps, paired), c, c);
    using shift = new Tensor(n.vx_linear(spread.handle, centre.handle, 0, c, c, 1), c, 1);
    return [
      new Tensor(n.vx_linear(x.handle, spread.handle, shift.handle, rows, c, c), rows, c, x.layout),
      new Tensor(n.vx_fold_grad_weight(...factors, ...shape, eps), weight.rows, c),
      Tensor.full(0, 1, bias.channels),
    ];
  });
  return { weight: folded, centre };
}
