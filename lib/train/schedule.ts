/** Learning rates as functions of the step. The papers step them once per epoch; here an epoch is `steps / epochs`. */

/** lr0 * (1 - e/E)^0.9, with a linear rise over the first `warmup` of `total` (same unit for all three). */
export function poly(lr0: number, at: number, total: number, warmup = 0): number {
  if (at < warmup) return lr0 * (at + 1) / warmup;
  return lr0 * (1 - (at - warmup) / (total - warmup)) ** 0.9;
}

/** Per step: linear from lr0 / 1000 to lr0 over `warmup` of `total` steps, then half a cosine to 0 (AMAES). */
export function cosine(lr0: number, step: number, total: number, warmup: number): number {
  if (step < warmup) return lr0 * (0.001 + 0.999 * step / warmup);
  return lr0 * (1 + Math.cos(Math.PI * (step - warmup) / (total - warmup))) / 2;
}
