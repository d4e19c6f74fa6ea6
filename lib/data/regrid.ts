/**
 * From the grid of a file to the grid of a network and back: axes turned to RAS, voxels of 1 mm.
 * Arrays are [z][y][x][c]. Turning moves voxels and is exact; resampling is linear (images, logits) or nearest (labels).
 */
import type { Side } from "../tensor.ts";

/** How a file's voxels lie in RAS: output axis a (z, y, x) is axis `axes[a]` of the file, backwards where `flips[a]`. */
export interface Turn {
  axes: Side;
  flips: readonly [boolean, boolean, boolean];
}

const ORDERS: Side[] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/** The turn that brings `affine` (voxel x, y, z -> RAS mm) nearest to RAS. */
export function turnOf(affine: number[][]): Turn {
  // at(a, s): how far one step along file axis s goes along world axis a; both count z, y, x.
  const norms = [0, 1, 2].map((s) => Math.hypot(affine[0][2 - s], affine[1][2 - s], affine[2][2 - s]));
  const at = (a: number, s: number) => affine[2 - a][2 - s] / norms[s];
  const fit = (order: Side) => order.reduce((sum, s, a) => sum + Math.abs(at(a, s)), 0);
  const axes = ORDERS.reduce((best, order) => fit(order) > fit(best) + 1e-9 ? order : best);
  const flips = axes.map((s, a) => at(a, s) < 0);
  return { axes, flips: [flips[0], flips[1], flips[2]] };
}

/** Three values of a file's axes in the order of the turned axes. */
export function turned<T>(values: readonly [T, T, T], { axes }: Turn): [T, T, T] {
  return [values[axes[0]], values[axes[1]], values[axes[2]]];
}

/** Turns `data`, of `shape` in the file, to RAS (`back` false), or an array in RAS back to the file's axes. */
export function turn<T extends Float32Array | Uint8Array>(
  data: T,
  shape: Side,
  channels: number,
  how: Turn,
  back = false,
): T {
  const [, ny, nx] = shape;
  const strides = [ny * nx, nx, 1];
  const out = turned(shape, how);
  const step = how.axes.map((s, a) => how.flips[a] ? -strides[s] : strides[s]);
  const start = how.axes.reduce((sum, s, a) => sum + (how.flips[a] ? strides[s] * (shape[s] - 1) : 0), 0);
  const result = data.slice() as T;
  for (let z = 0, i = 0; z < out[0]; z++) {
    for (let y = 0; y < out[1]; y++) {
      for (let x = 0; x < out[2]; x++, i++) {
        const j = start + z * step[0] + y * step[1] + x * step[2];
        const [from, to] = back ? [i, j] : [j, i];
        for (let c = 0; c < channels; c++) result[to * channels + c] = data[from * channels + c];
      }
    }
  }
  return result;
}

/** Voxels per axis of the same box with voxels of 1 mm. */
export function isotropic(shape: Side, spacing: Side): [number, number, number] {
  const side = (a: number) => Math.max(1, Math.round(shape[a] * spacing[a]));
  return [side(0), side(1), side(2)];
}

const same = (a: Side, b: Side) => a.every((n, i) => n === b[i]);

/** Linear, one axis after the other; both grids share their outer edges, values beyond the last centre repeat it. */
export function resample(data: Float32Array, from: Side, to: Side, channels: number): Float32Array {
  if (same(from, to)) return data;
  const shape = [...from];
  for (let axis = 0; axis < 3; axis++) {
    const [n, m] = [from[axis], to[axis]];
    if (n === m) continue;
    const inner = shape.slice(axis + 1).reduce((a, b) => a * b, channels);
    const outer = shape.slice(0, axis).reduce((a, b) => a * b, 1);
    const out = new Float32Array(outer * m * inner);
    for (let i = 0; i < m; i++) {
      const at = Math.min(n - 1, Math.max(0, (i + 0.5) * n / m - 0.5));
      const low = Math.floor(at);
      const high = Math.min(n - 1, low + 1);
      const w = at - low;
      for (let o = 0; o < outer; o++) {
        const [a, b, t] = [(o * n + low) * inner, (o * n + high) * inner, (o * m + i) * inner];
        for (let k = 0; k < inner; k++) out[t + k] = (1 - w) * data[a + k] + w * data[b + k];
      }
    }
    data = out;
    shape[axis] = m;
  }
  return data;
}

/** The label at the nearest voxel centre. */
export function resampleLabels(data: Uint8Array, from: Side, to: Side): Uint8Array {
  if (same(from, to)) return data;
  const near = to.map((m, a) =>
    Uint32Array.from({ length: m }, (_, i) => Math.floor((i + 0.5) * from[a] / m))
  );
  const out = new Uint8Array(to[0] * to[1] * to[2]);
  let i = 0;
  for (const z of near[0]) {
    for (const y of near[1]) for (const x of near[2]) out[i++] = data[(z * from[1] + y) * from[2] + x];
  }
  return out;
}
