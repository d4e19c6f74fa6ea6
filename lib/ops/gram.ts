/** Gram loss: student and teacher agree on which channels are active together (LatentCampus). */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";
import { dot, normalize } from "./cosine.ts";

/**
 * Mean over samples and channel pairs of (P^T P - Z^T Z)^2, rows normalised here; not divided by the positions.
 * @param p student `[n * positions][c]`
 * @param z teacher `[n * positions][c]`, paired with p; receives no gradient
 * @param positions rows of one sample
 */
export function gramLoss(p: Tensor, z: Tensor, positions: number): Tensor {
  const [n, c] = [p.rows / positions, p.channels];
  if (!Number.isInteger(n) || z.rows !== p.rows || z.channels !== c) {
    throw new Error(`gramLoss: ${p.rows} and ${z.rows} rows do not pair in samples of ${positions}`);
  }
  const lib = native();
  const unit = normalize(p);
  const target = normalize(z);
  const difference = new Tensor(
    lib.vx_gram_difference(unit.handle, target.handle, n, positions, c),
    n * c,
    c,
  );
  record(difference, [unit], (dd) => [
    new Tensor(lib.vx_gram_grad(unit.handle, dd.handle, n, positions, c), p.rows, c),
  ]);
  return dot(difference, difference, 0, 1 / (n * c * c));
}
