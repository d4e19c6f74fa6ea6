/**
 * Training crops with labels. A third of each batch is centred on a foreground voxel (nnU-Net's oversampling); every
 * crop is mirrored, some are rotated and scaled, and intensities vary. All of it is a function of the random numbers.
 */
import type { Case } from "../data/cases.ts";
import { rotation } from "../data/views.ts";
import { native } from "../native/library.ts";
import type { Rng } from "../rng.ts";
import { type Side, volume } from "../tensor.ts";

/** `image` `[n][z][y][x][c]`, `labels` `[n][z][y][x]` classes; `targets` `[n]` in an image task. */
export interface Crops {
  image: Float32Array;
  labels: Uint8Array;
  targets: Float32Array;
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
function startOf(shape: Side, patch: Side, site: Side | null, rng: Rng): number[] {
  return shape.map((s, a) => {
    const pad = Math.max(0, patch[a] - s);
    const low = -Math.floor(pad / 2);
    if (site) return Math.max(low, site[a] - Math.floor(patch[a] / 2));
    return low + rng.integer(s - patch[a] + pad + 1);
  });
}

/** Rotation about z, y, x by up to 30 degrees and scale 0.7 to 1.4, each with p = 0.2; mirrored with p = 1/2 per axis. */
function warp(rng: Rng): number[] {
  const angle = () => rng.uniform(-Math.PI / 6, Math.PI / 6);
  const [a, b, c] = rng.uniform() < 0.2 ? [angle(), angle(), angle()] : [0, 0, 0];
  const s = rng.uniform() < 0.2 ? (rng.uniform() < 0.5 ? rng.uniform(0.7, 1) : rng.uniform(1, 1.4)) : 1;
  const turn = rotation([a, b, c]).flat();
  const flips = [0, 1, 2].map(() => rng.uniform() < 0.5 ? -1 : 1);
  return turn.map((v, i) => v * s * flips[i % 3]);
}

/** Samples one crop: linear for the image, nearest for the labels, 0 outside the case. */
export async function sample(
  { image, target = new Uint8Array(), shape }: Pick<Case, "image" | "target" | "shape">,
  start: number[],
  patch: Side,
  matrix: number[],
  out: Float32Array,
  labels: Uint8Array,
): Promise<void> {
  const place = Float64Array.of(...start.map((s, a) => s + patch[a] / 2 - 0.5), ...matrix);
  await native().vx_crop_wait(
    image,
    image.length,
    target,
    target.length,
    ...shape,
    image.length / volume(shape),
    place,
    place.length,
    ...patch,
    out,
    out.length,
    labels,
    labels.length,
  );
}

/** In place: noise, brightness, contrast, gamma with the chances and ranges of nnU-Net; blur is left out. */
function colour(image: Float32Array, channels: number, rng: Rng): void {
  if (rng.uniform() < 0.1) {
    const sigma = rng.uniform(0, 0.1);
    for (let i = 0; i < image.length; i++) image[i] += sigma * rng.normal();
  }
  const brightness = rng.uniform() < 0.15;
  const contrast = rng.uniform() < 0.15;
  const gamma = rng.uniform() < 0.3;
  for (let c = 0; c < channels; c++) {
    const each = (f: (v: number) => number) => {
      for (let i = c; i < image.length; i += channels) image[i] = f(image[i]);
    };
    let [sum, square, low, high, n] = [0, 0, Infinity, -Infinity, 0];
    const measure = () => {
      [sum, square, low, high, n] = [0, 0, Infinity, -Infinity, image.length / channels];
      each((v) => {
        sum += v;
        square += v * v;
        low = Math.min(low, v);
        high = Math.max(high, v);
        return v;
      });
    };
    if (brightness) {
      const factor = rng.uniform(0.75, 1.25);
      each((v) => v * factor);
    }
    if (contrast) {
      measure();
      const [mean, bottom, top, factor] = [sum / n, low, high, rng.uniform(0.75, 1.25)];
      each((v) => Math.min(top, Math.max(bottom, mean + (v - mean) * factor)));
    }
    if (gamma) {
      measure();
      const power = rng.uniform() < 0.5 ? rng.uniform(0.7, 1) : rng.uniform(1, 1.5);
      const [mean, bottom, range] = [sum / n, low, Math.max(high - low, 1e-7)];
      const deviation = Math.sqrt(Math.max(0, square / n - mean * mean));
      each((v) => ((v - bottom) / range) ** power * range + bottom);
      measure();
      const [mean2, deviation2] = [sum / n, Math.sqrt(Math.max(0, square / n - (sum / n) ** 2))];
      each((v) => (v - mean2) / Math.max(deviation2, 1e-7) * deviation + mean);
    }
  }
}

/** A case with the voxels to centre on: none in an image task. */
export interface Source {
  case: Case;
  sites: Uint32Array[];
}

/**
 * Draws crop `i` of `n` of a step from `source` into `out`.
 * @param plain no warp and no change of intensities: the bare crop
 */
export async function crop(
  source: Source,
  patch: Side,
  i: number,
  n: number,
  out: Crops,
  rng: Rng,
  plain = false,
): Promise<void> {
  const { shape } = source.case;
  const voxels = volume(patch);
  const channels = source.case.image.length / volume(shape);
  const image = out.image.subarray(i * voxels * channels, (i + 1) * voxels * channels);
  const labels = out.labels.subarray(i * voxels, (i + 1) * voxels);
  const present = source.sites.filter((list) => list.length > 0);
  let site: Side | null = null;
  if (forced(i, n) && present.length) {
    const list = present[rng.integer(present.length)];
    const at = list[rng.integer(list.length)];
    site = [Math.floor(at / (shape[1] * shape[2])), Math.floor(at / shape[2]) % shape[1], at % shape[2]];
  }
  const start = startOf(shape, patch, site, rng);
  await sample(source.case, start, patch, plain ? [1, 0, 0, 0, 1, 0, 0, 0, 1] : warp(rng), image, labels);
  if (!plain) colour(image, channels, rng);
}
