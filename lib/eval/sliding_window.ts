/**
 * Sliding-window inference of nnU-Net: windows at half a patch, Gaussian weights, mean of logits over mirrored copies.
 * Volumes smaller than the patch are padded with 0 on both sides. Sums are float32.
 */
import type { Side } from "../tensor.ts";
import { volume } from "../tensor.ts";

/** Logits `[z][y][x][outputs]` of a window `[z][y][x][channels]`; undefined ends the whole inference. */
export type Forward = (window: Float32Array) => Promise<Float32Array | undefined>;

/** Starts of the windows along an axis of `size` >= `patch` voxels. */
export function positions(size: number, patch: number, step = 0.5): number[] {
  const n = Math.ceil((size - patch) / (patch * step)) + 1;
  if (n === 1) return [0];
  return Array.from({ length: n }, (_, i) => roundHalfEven(i * (size - patch) / (n - 1)));
}

function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + low % 2 : Math.round(x);
}

/** Weights along an axis: a Gaussian of sigma = patch / 8 around voxel floor(patch / 2), 1 there. */
export function gaussian(patch: number): Float32Array {
  return Float32Array.from(
    { length: patch },
    (_, i) => Math.exp(-0.5 * ((i - Math.floor(patch / 2)) / (patch / 8)) ** 2),
  );
}

/** The array `[z][y][x][c]` turned around along the axes of `flips` (z, y, x). */
function mirrored(data: Float32Array, [nz, ny, nx]: Side, channels: number, flips: boolean[]): Float32Array {
  const out = new Float32Array(data.length);
  for (let z = 0, i = 0; z < nz; z++) {
    const fz = flips[0] ? nz - 1 - z : z;
    for (let y = 0; y < ny; y++) {
      const fy = flips[1] ? ny - 1 - y : y;
      for (let x = 0; x < nx; x++) {
        const j = ((fz * ny + fy) * nx + (flips[2] ? nx - 1 - x : x)) * channels;
        for (let c = 0; c < channels; c++) out[i++] = data[j + c];
      }
    }
  }
  return out;
}

/** First voxels (z, y, x) of the windows over a volume; below 0 where the volume is smaller than the patch. */
function* starts(shape: Side, patch: Side, step: number): Generator<Side> {
  const before = shape.map((s, a) => Math.max(0, Math.floor((patch[a] - s) / 2)));
  const [zs, ys, xs] = shape.map((s, a) =>
    positions(Math.max(s, patch[a]), patch[a], step).map((p) => p - before[a])
  );
  for (const z of zs) for (const y of ys) for (const x of xs) yield [z, y, x];
}

/** Calls `row` with each row of a window that lies inside the volume: window offset, volume offset, length. */
function rows(
  [nz, ny, nx]: Side,
  patch: Side,
  [z0, y0, x0]: Side,
  row: (window: number, volume: number, length: number) => void,
): void {
  const x = Math.max(0, -x0);
  const length = Math.min(patch[2], nx - x0) - x;
  for (let z = Math.max(0, -z0); z < patch[0] && z0 + z < nz; z++) {
    for (let y = Math.max(0, -y0); y < patch[1] && y0 + y < ny; y++) {
      row((z * patch[1] + y) * patch[2] + x, ((z0 + z) * ny + y0 + y) * nx + x0 + x, length);
    }
  }
}

/** Fills a window with the part of the image that it covers, and 0 outside. */
function cut(
  image: Float32Array,
  shape: Side,
  c: number,
  patch: Side,
  start: Side,
  window: Float32Array,
): void {
  window.fill(0);
  rows(shape, patch, start, (w, v, n) => window.set(image.subarray(v * c, (v + n) * c), w * c));
}

/** The windows `[z][y][x][channels]` of a volume, `step` patches apart; one array, filled again for each. */
export function* windows(
  image: Float32Array,
  shape: Side,
  channels: number,
  patch: Side,
  step = 0.5,
): Generator<Float32Array> {
  const window = new Float32Array(volume(patch) * channels);
  for (const start of starts(shape, patch, step)) {
    cut(image, shape, channels, patch, start, window);
    yield window;
  }
}

/**
 * Logits of a whole volume.
 * @param image `[z][y][x][channels]` of `shape`
 * @param mirror mean over the 8 mirrored copies of each window
 * @returns `[z][y][x][outputs]` of `shape`, or undefined when `forward` gave none
 */
export async function slidingWindow(
  image: Float32Array,
  shape: Side,
  channels: number,
  patch: Side,
  outputs: number,
  forward: Forward,
  { mirror = true, step = 0.5 } = {},
): Promise<Float32Array | undefined> {
  const weights = patch.map(gaussian);
  const sum = new Float32Array(volume(shape) * outputs);
  const total = new Float32Array(volume(shape));
  const window = new Float32Array(volume(patch) * channels);
  const copies = mirror ? [0, 1, 2, 3, 4, 5, 6, 7] : [0];

  const weightAt = (w: number) =>
    weights[0][Math.floor(w / (patch[1] * patch[2]))] * weights[1][Math.floor(w / patch[2]) % patch[1]];

  for (const start of starts(shape, patch, step)) {
    cut(image, shape, channels, patch, start, window);
    const mean = new Float32Array(volume(patch) * outputs);
    for (const copy of copies) {
      const flips = [1, 2, 4].map((bit) => (copy & bit) > 0);
      const given = await forward(copy ? mirrored(window, patch, channels, flips) : window);
      if (!given) return undefined;
      const logits = copy ? mirrored(given, patch, outputs, flips) : given;
      for (let i = 0; i < mean.length; i++) mean[i] += logits[i] / copies.length;
    }
    rows(shape, patch, start, (w, v, n) => {
      const outer = weightAt(w);
      for (let i = 0; i < n; i++) {
        const weight = outer * weights[2][(w + i) % patch[2]];
        total[v + i] += weight;
        for (let k = 0; k < outputs; k++) {
          sum[(v + i) * outputs + k] += weight * mean[(w + i) * outputs + k];
        }
      }
    });
  }
  for (let i = 0; i < total.length; i++) {
    for (let k = 0; k < outputs; k++) sum[i * outputs + k] /= total[i];
  }
  return sum;
}
