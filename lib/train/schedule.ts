/** Learning rates as functions of the step. The papers step them once per epoch; here an epoch is `steps / epochs`. */

/** lr0 * (1 - e/E)^0.9, with a linear rise over the first `warmup` of `total` (same unit for all three). */
export function poly(lr0: number, at: number, total: number, warmup = 0): number {
  if (at < warmup) return lr0 * (at + 1) / warmup;
  return lr0 * (1 - (at - warmup) / (total - warmup)) ** 0.9;
}
