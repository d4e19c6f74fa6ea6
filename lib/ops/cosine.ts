/** Unit rows, inner products, and the cosine loss of consistent view alignment. */
import { record } from "../autograd.ts";
import { UserError } from "../errors.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/** f32 machine epsilon: the smallest norm that rows are divided by. */
const EPS = 2 ** -23;

/** Rows of `[rows][c]` divided by max(norm, f32 epsilon). */
export function normalize(x: Tensor): Tensor {
  const shape = [x.rows, x.channels, EPS] as const;
  const n = native();
  const y = new Tensor(n.vx_normalize(x.handle, ...shape), x.rows, x.channels, x.layout);
  return record(y, [x], (dy) => [
    new Tensor(n.vx_normalize_grad(dy.handle, x.handle, ...shape), x.rows, x.channels, x.layout),
  ]);
}

/** offset + factor * sum of a * b over all values, a scalar; a and b of one shape. Gradients to both. */
export function dot(a: Tensor, b: Tensor, offset = 0, factor = 1): Tensor {
  const n = native();
  const y = new Tensor(n.vx_dot(a.handle, b.handle, a.length, offset, factor), 1, 1);
  const times = (dy: Tensor, other: Tensor) =>
    new Tensor(n.vx_scale_by(dy.handle, factor, other.handle, a.length), a.rows, a.channels, a.layout);
  return record(y, [a, b], (dy) => [times(dy, b), times(dy, a)]);
}

/**
 * 2 - 2 * mean over rows of the cosine between p and z: 0 for identical directions, 2 for orthogonal, 4 for opposite.
 * @param p student rows `[rows][c]`
 * @param z teacher rows `[rows][c]`, already paired row by row; receives no gradient
 */
export function cosineLoss(p: Tensor, z: Tensor): Tensor {
  const n = native();
  const unit = normalize(p);
  const target = new Tensor(n.vx_normalize(z.handle, z.rows, z.channels, EPS), z.rows, z.channels);
  const factor = -2 / p.rows;
  const y = new Tensor(n.vx_dot(unit.handle, target.handle, p.length, 2, factor), 1, 1);
  return record(y, [unit], (dy) => [
    new Tensor(n.vx_scale_by(dy.handle, factor, target.handle, p.length), p.rows, p.channels, p.layout),
  ]);
}

/**
 * How evenly rows `[rows][c]` point: sqrt(c) times the mean over channels of the standard deviation of the unit rows.
 * About 1 where all directions occur, 0 where they have collapsed to one. A scalar with no gradient.
 */
export function spread(x: Tensor): Tensor {
  const n = native();
  const unit = new Tensor(n.vx_normalize(x.handle, x.rows, x.channels, EPS), x.rows, x.channels);
  return new Tensor(n.vx_spread(unit.handle, x.rows, x.channels), 1, 1);
}

/**
 * Rolls a batch by half, so that row k of the teacher meets the other view of the same image: the batch is
 * [all first views; all second views].
 * @param x `[n * k rows][c]`, n samples of k rows
 * @throws UserError when n is odd
 */
export function rollHalf(x: Tensor, k: number): Tensor {
  const samples = x.rows / k;
  if (!Number.isInteger(samples) || samples % 2) {
    throw new UserError(`batch: ${samples} views cannot be paired; two views per image are needed`);
  }
  const swap = (from: Tensor) =>
    new Tensor(native().vx_swap_halves(from.handle, from.length), x.rows, x.channels, x.layout);
  return record(swap(x), [x], (dy) => [swap(dy)]);
}
