/** Instance normalisation over the visible voxels, with affine, residual sum and LeakyReLU in the same pass. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor, volume } from "../tensor.ts";

/**
 * y = act(gamma * (x - mean) / sqrt(variance + eps) + beta + residual), with mean and biased variance per sample and
 * channel over the voxels of that sample's visible blocks only: InstanceNorm3d of PyTorch where every block is
 * visible, the sparse instance norm of S3D (2.3) where not.
 * @param x `[block][z][y][x][c]`
 * @param gamma `[c]` or null for 1
 * @param beta `[c]` or null for 0
 * @param o `residual`: of x's shape; `slope`: of the LeakyReLU (absent = no activation); `eps`: 1e-5
 * @returns of x's shape; may be dropped
 * @throws UserError naming the patch when a sample has fewer than 2 visible voxels
 */
export function instanceNorm(
  x: Tensor,
  gamma: Tensor | null,
  beta: Tensor | null,
  o: { residual?: Tensor; slope?: number; eps?: number } = {},
): Tensor {
  const { grid, side } = x.space;
  const { residual = null, slope = 1, eps = 1e-5 } = o;
  if (slope < 0) throw new Error(`instanceNorm: slope ${slope} is below 0`);
  return normalise(x, gamma, beta, residual, slope, eps, [grid.handle, volume(side)]);
}

/** The fused op on rows by sample: `rowsOf` is a grid handle (0: one sample) and the rows per block. */
export function normalise(
  x: Tensor,
  gamma: Tensor | null,
  beta: Tensor | null,
  residual: Tensor | null,
  slope: number,
  eps: number,
  rowsOf: readonly [grid: number, voxels: number],
): Tensor {
  const n = native();
  const c = x.channels;
  const samples = x.layout?.grid.samples ?? 1;
  const tail = [...rowsOf, c] as const;
  const affine = [gamma?.handle ?? 0, beta?.handle ?? 0] as const;
  const statistics = new Tensor(n.vx_norm_statistics(x.handle, ...tail, eps), 2 * samples, c);
  const make = () => n.vx_norm(x.handle, statistics.handle, ...affine, residual?.handle ?? 0, ...tail, slope);
  const y = new Tensor(make, x.rows, c, x.layout);
  const wants = [x, gamma, beta, residual].map(needsGradient);
  return record(y, [x, gamma, beta, residual], (dy) => {
    // With a residual, the gradient before the activation is one of its own: the rest then reads that.
    const apart = residual !== null && slope !== 1;
    const handles = new Uint32Array(2);
    if (apart) {
      const head = [x.handle, y.handle, dy.handle, statistics.handle] as const;
      n.vx_norm_grad_inner(...head, ...tail, slope, handles, handles.length);
    } else {
      const head = [x.handle, dy.handle, statistics.handle] as const;
      handles[1] = n.vx_norm_grad_sums(...head, ...affine, ...tail, slope);
    }
    const inner = apart ? new Tensor(handles[0], x.rows, c, x.layout) : dy;
    using sums = new Tensor(handles[1], 2 * samples, c);
    const head = [x.handle, inner.handle, statistics.handle, sums.handle] as const;
    const part = (half: 0 | 1) => new Tensor(n.vx_norm_grad_affine(sums.handle, half, samples, c), 1, c);
    const dx = wants[0]
      ? new Tensor(n.vx_norm_grad_input(...head, ...affine, ...tail, apart ? 1 : slope), x.rows, c, x.layout)
      : null;
    if (apart && !wants[3]) inner[Symbol.dispose]();
    return [dx, wants[1] ? part(1) : null, wants[2] ? part(0) : null, wants[3] ? inner : null];
  });
}
