/** Sums and weights of tensors of one shape. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/** weight * x. */
export function scale(x: Tensor, weight: number): Tensor {
  const n = native();
  const y = new Tensor(n.vx_scale(weight, x.handle, x.length), x.rows, x.channels, x.layout);
  return record(
    y,
    [x],
    (dy) => [new Tensor(n.vx_scale(weight, dy.handle, dy.length), x.rows, x.channels, x.layout)],
  );
}

/** a + b, of one shape. */
export function add(a: Tensor, b: Tensor): Tensor {
  if (a.rows !== b.rows || a.channels !== b.channels) throw new Error("add: the shapes differ");
  const y = new Tensor(
    native().vx_linear_combination(1, a.handle, 1, b.handle, a.length),
    a.rows,
    a.channels,
    a.layout,
  );
  return record(y, [a, b], (dy) => [dy, dy]);
}
