/**
 * Training crops with labels, as nnU-Net makes them: a third of each batch is centred on a foreground voxel; every crop is
 * mirrored, some are rotated by up to 30 degrees about each axis and scaled by 0.7 to 1.4; intensities vary. Images are linear
 * between voxels, a label is the class with the largest linear weight. All of it is a function of the random numbers.
 */
import { drawChannels } from "../data/augment.ts";
import type { Case } from "../data/cases.ts";
import { Views } from "../data/images.ts";
import { drawChange, makeView, type Triple } from "../data/views.ts";
import { native } from "../native/library.ts";
import type { Rng } from "../rng.ts";
import { type Side, volume } from "../tensor.ts";

/** What the loss compares with: `labels` `[n][z][y][x]` classes; `targets` `[n]` in an image task. */
export interface Truth {
  labels: Uint8Array;
  targets: Float32Array;
}

/** The images of a step `[n][z][y][x][c]`, which are made with it, and what is true of them. */
export interface Crops extends Truth {
  readonly views: Views;
}

/** Voxels kept per class to centre crops on. */
const MOST_SITES = 10_000;

/** Indices of some voxels of each class from 1; empty where a class is absent. */
export function sites(target: Uint8Array, classes: number): Uint32Array[] {
  const counts = new Uint32Array(classes);
  for (const k of target) counts[k]++;
  const every = counts.map((n) => Math.ceil(n / MOST_SITES) || 1);
  const out = Array.from(counts, (n, k) => new Uint32Array(k ? Math.ceil(n / every[k]) : 0));
  const seen = new Uint32Array(classes);
  target.forEach((k, i) => {
    if (k && seen[k] % every[k] === 0) out[k][seen[k] / every[k]] = i;
    seen[k]++;
  });
  return out;
}

/** Whether sample `i` of a batch of `n` is centred on foreground: the last third, rounded as nnU-Net does. */
export function forced(i: number, n: number): boolean {
  const free = n * (1 - 0.33);
  const low = Math.floor(free);
  return i >= (free - low === 0.5 ? low + low % 2 : Math.round(free));
}

/** Start of the crop, z, y, x, in voxels of the case; it may reach beyond a small or a near border. */
function startOf(shape: Side, patch: Triple, site: Side | null, rng: Rng): number[] {
  return shape.map((s, a) => {
    const pad = Math.max(0, patch[a] - s);
    const low = -Math.floor(pad / 2);
    if (site) return Math.max(low, site[a] - Math.floor(patch[a] / 2));
    return low + rng.integer(s - patch[a] + pad + 1);
  });
}

/** A case with the voxels to centre on: none in an image task. */
export interface Source {
  case: Pick<Case, "image" | "target" | "shape">;
  sites: Uint32Array[];
}

/**
 * Draws crop `i` of `n` of a step from `source` into `out`.
 * @param plain no warp and no change of intensities: the bare crop
 */
export async function crop(
  source: Source,
  i: number,
  n: number,
  out: Crops,
  rng: Rng,
  plain = false,
): Promise<void> {
  const { image, target, shape } = source.case;
  const { patch } = out.views;
  const [voxels, channels] = [volume(patch), image.length / volume(shape)];
  const present = source.sites.filter((list) => list.length > 0);
  let site: Side | null = null;
  if (forced(i, n) && present.length) {
    const list = present[rng.integer(present.length)];
    const at = list[rng.integer(list.length)];
    site = [Math.floor(at / (shape[1] * shape[2])), Math.floor(at / shape[2]) % shape[1], at % shape[2]];
  }
  const start = startOf(shape, patch, site, rng);
  const view = makeView(
    start,
    patch,
    start.map((s, d) => s + patch[d] / 2),
    drawChange(rng, Math.PI / 6, !plain),
  );
  const drawn = drawChannels(rng, channels);
  for (const [channel, list] of drawn.entries()) {
    const treatment = { changes: plain ? [] : list, linear: true };
    await out.views.add(i, image, [...shape], view, treatment, channel);
  }
  if (!target) return;
  const labels = out.labels.subarray(i * voxels, (i + 1) * voxels);
  const affine = Float64Array.from(view.affine.flat());
  await native().vx_sample_labels_wait(
    target,
    target.length,
    ...shape,
    affine,
    affine.length,
    ...patch,
    labels,
    labels.length,
  );
}
