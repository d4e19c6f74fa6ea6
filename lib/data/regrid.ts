/**
 * From the grid of a file to the grid of a network and back: axes turned to RAS, a box of them, voxels of 1 mm.
 * Arrays are [z][y][x][c]. Turning and cutting move voxels and are exact; resampling is linear (logits) or nearest
 * (labels). Images go by native code (volume.ts), by cubic splines.
 */
import { UserError } from "../errors.ts";
import { type Side, volume } from "../tensor.ts";
import type { Box } from "./volume.ts";

/** How a file's voxels lie in RAS: output axis a (z, y, x) is axis `axes[a]` of the file, backwards where `flips[a]`. */
export interface Turn {
  axes: Side;
  flips: readonly [boolean, boolean, boolean];
}

const ORDERS: Side[] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/** Unit vectors of the voxel axes z, y, x of an affine, in RAS. */
const directions = (affine: number[][]) =>
  [2, 1, 0].map((column) => {
    const step = [0, 1, 2].map((row) => affine[row][column]);
    return step.map((v) => v / Math.hypot(...step));
  });

const RAS = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]];

/** The turn that brings the voxel axes of `affine` (voxel x, y, z -> RAS mm) nearest to those of `to`. */
export function turnOf(affine: number[][], to: number[][] = RAS): Turn {
  // at(a, s): how far one step along file axis s goes along wanted axis a; both count z, y, x.
  const [given, wanted] = [directions(affine), directions(to)];
  const at = (a: number, s: number) => wanted[a].reduce((sum, v, i) => sum + v * given[s][i], 0);
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

/** Voxels per axis of a box. */
export function sides({ low, high }: Box): [number, number, number] {
  return [high[0] - low[0], high[1] - low[1], high[2] - low[2]];
}

/** The smallest box around all. */
export function union(boxes: Box[]): Box {
  const at = (a: number) => ({
    low: Math.min(...boxes.map((b) => b.low[a])),
    high: Math.max(...boxes.map((b) => b.high[a])),
  });
  const [z, y, x] = [at(0), at(1), at(2)];
  return { low: [z.low, y.low, x.low], high: [z.high, y.high, x.high] };
}

/** Calls `row` with the first voxel in the volume and in the box, and the length, of every row of a box. */
function rows([, ny, nx]: Side, box: Box, row: (outer: number, inner: number, length: number) => void): void {
  const length = box.high[2] - box.low[2];
  for (let z = box.low[0], inner = 0; z < box.high[0]; z++) {
    for (let y = box.low[1]; y < box.high[1]; y++, inner += length) {
      row((z * ny + y) * nx + box.low[2], inner, length);
    }
  }
}

/** A box of a label map. */
export function cut(data: Uint8Array, shape: Side, box: Box): Uint8Array {
  const out = new Uint8Array(volume(sides(box)));
  rows(shape, box, (outer, inner, n) => out.set(data.subarray(outer, outer + n), inner));
  return out;
}

/** A box of logits put back into `shape`; outside, the first class is certain. */
export function paste(data: Float32Array, shape: Side, box: Box, channels: number): Float32Array {
  const out = new Float32Array(volume(shape) * channels).fill(-Infinity);
  for (let i = 0; i < out.length; i += channels) out[i] = 0;
  rows(shape, box, (outer, inner, n) => {
    out.set(data.subarray(inner * channels, (inner + n) * channels), outer * channels);
  });
  return out;
}

/** Voxels per axis at 1 mm: ties go to the even number, as in native code. */
export function isotropic(shape: Side, spacing: Side): [number, number, number] {
  const side = (a: number) => {
    const exact = shape[a] * Math.round(spacing[a] * 1e6) / 1e6;
    const low = Math.floor(exact);
    return Math.max(1, exact - low === 0.5 ? low + low % 2 : Math.round(exact));
  };
  return [side(0), side(1), side(2)];
}

/** A grid in space, and where it was found. */
export interface Grid {
  shape: Side;
  affine: number[][];
  spacing: Side;
}

/**
 * Refuses two files whose voxels do not lie in the same places, to a twentieth of the thinnest voxel at every corner.
 * @throws UserError naming both
 */
export function sameGrid(file: string, grid: Grid, otherFile: string, other: Grid): void {
  if (grid.shape.some((n, i) => n !== other.shape[i])) {
    throw new UserError(
      `${file}: the shape is ${grid.shape.join(" x ")}, that of ${otherFile} is ${
        other.shape.join(" x ")
      } (z, y, x); they must lie on one grid`,
    );
  }
  const [nz, ny, nx] = other.shape;
  let apart = 0;
  for (let corner = 0; corner < 8; corner++) {
    const at = [corner & 1 ? nx - 1 : 0, corner & 2 ? ny - 1 : 0, corner & 4 ? nz - 1 : 0, 1];
    const move = grid.affine.slice(0, 3).map((row, i) =>
      row.reduce((sum, v, j) => sum + (v - other.affine[i][j]) * at[j], 0)
    );
    apart = Math.max(apart, Math.hypot(...move));
  }
  if (apart > Math.min(...other.spacing) / 20) {
    throw new UserError(
      `${file}: its grid lies up to ${
        apart.toPrecision(3)
      } mm away from that of ${otherFile}; resample it to that affine`,
    );
  }
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
