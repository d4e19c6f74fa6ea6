/** Slices of volumes as pictures: gray planes, box outlines, side by side. */
import { png } from "./png.ts";

/** [red, green, blue], 0..255. */
export type Colour = readonly [number, number, number];

/** Anatomical plane by the axis that is fixed: 0 axial (z), 1 coronal (y), 2 sagittal (x). */
export type Plane = 0 | 1 | 2;

/** Gray values between the percentiles `low` and `high` (0..100) of finite `values`: the window that shows a volume well. */
export function percentileWindow(values: Float32Array, low = 0.5, high = 99.5): [number, number] {
  const stride = Math.max(1, Math.floor(values.length / 100_000));
  const sample: number[] = [];
  for (let i = 0; i < values.length; i += stride) if (Number.isFinite(values[i])) sample.push(values[i]);
  if (!sample.length) return [0, 1];
  const sorted = Float32Array.from(sample).sort();
  const at = (p: number) => sorted[Math.round((p / 100) * (sorted.length - 1))];
  return at(high) > at(low)
    ? [at(low), at(high)]
    : [sorted[0], Math.max(sorted[0] + 1e-6, sorted[sorted.length - 1])];
}

/** The two axes that a plane shows: [rows, columns]. */
function axes(plane: Plane): [number, number] {
  return plane === 0 ? [1, 2] : plane === 1 ? [0, 2] : [0, 1];
}

/** Size in pixels, [width, height], of a plane of a volume of `shape` [z, y, x] at `scale` pixels per voxel. */
export function planeSize(shape: readonly number[], plane: Plane, scale: number): [number, number] {
  const [row, column] = axes(plane);
  return [Math.round(shape[column] * scale), Math.round(shape[row] * scale)];
}

/** An RGB picture. Volumes are RAS: rows are drawn from the far end, so that superior and anterior are up. */
export class Canvas {
  readonly rgb: Uint8Array;

  constructor(readonly width: number, readonly height: number, ground: Colour = [0, 0, 0]) {
    this.rgb = new Uint8Array(width * height * 3);
    for (let i = 0; i < this.rgb.length; i++) this.rgb[i] = ground[i % 3];
  }

  /** Sets one pixel; outside the picture nothing happens. */
  dot(x: number, y: number, colour: Colour): void {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    this.rgb.set(colour, (y * this.width + x) * 3);
  }

  /**
   * Draws slice `index` along `plane` of `values` ([z, y, x] in C order) with its upper left corner at (x0, y0), nearest
   * voxel, `scale` pixels per voxel. `window`: the values shown black and white; a value that is not finite is red.
   */
  gray(
    values: Float32Array,
    shape: readonly number[],
    plane: Plane,
    index: number,
    x0: number,
    y0: number,
    scale: number,
    window: readonly [number, number],
  ): void {
    const stride = [shape[1] * shape[2], shape[2], 1];
    const [row, column] = axes(plane);
    const [width, height] = planeSize(shape, plane, scale);
    for (let y = 0; y < height; y++) {
      const r = shape[row] - 1 - Math.min(shape[row] - 1, Math.floor((y + 0.5) / scale));
      for (let x = 0; x < width; x++) {
        const c = Math.min(shape[column] - 1, Math.floor((x + 0.5) / scale));
        const value = values[index * stride[plane] + r * stride[row] + c * stride[column]];
        const level = Math.round(
          255 * Math.min(1, Math.max(0, (value - window[0]) / (window[1] - window[0]))),
        );
        this.dot(x0 + x, y0 + y, Number.isFinite(value) ? [level, level, level] : [255, 0, 0]);
      }
    }
  }

  /**
   * Outlines a box [lo z, y, x, hi z, y, x] (edge coordinates in voxels of a volume of `shape`) as seen in `plane`, over a
   * slice that was drawn at (x0, y0) with `scale`. Nothing is drawn when `index` (a slice) is given and misses the box.
   */
  box(
    box: readonly number[],
    shape: readonly number[],
    plane: Plane,
    x0: number,
    y0: number,
    scale: number,
    colour: Colour,
    index?: number,
  ): void {
    if (index !== undefined && (index + 0.5 < box[plane] || index + 0.5 > box[plane + 3])) return;
    const [row, column] = axes(plane);
    const left = Math.round(box[column] * scale);
    const right = Math.round(box[column + 3] * scale) - 1;
    const top = Math.round((shape[row] - box[row + 3]) * scale);
    const bottom = Math.round((shape[row] - box[row]) * scale) - 1;
    for (let x = left; x <= right; x++) for (const y of [top, bottom]) this.dot(x0 + x, y0 + y, colour);
    for (let y = top; y <= bottom; y++) for (const x of [left, right]) this.dot(x0 + x, y0 + y, colour);
  }

  /** The picture as a PNG file. */
  png(): Promise<Uint8Array<ArrayBuffer>> {
    return png(this.width, this.height, this.rgb);
  }
}

/** One volume of a row: `values` [z, y, x] of `shape`, boxes to outline, and a `window` when not by percentiles. */
export interface Panel {
  values: Float32Array;
  shape: readonly [number, number, number];
  boxes?: { box: readonly number[]; colour: Colour }[];
  window?: readonly [number, number];
  /** Slices [z, y, x] to show instead of the middle ones. */
  at?: readonly number[];
}

/** The axial, coronal and sagittal slices of each row's panels side by side, rows below each other, on dark gray. */
export function page(rows: Panel[][], scale = 2, gap = 4): Canvas {
  const planes: Plane[] = [0, 1, 2];
  const placed = rows.map((panels) => panels.flatMap((panel) => planes.map((plane) => ({ panel, plane }))));
  const size = ({ panel, plane }: { panel: Panel; plane: Plane }) => planeSize(panel.shape, plane, scale);
  const heights = placed.map((row) => Math.max(0, ...row.map((p) => size(p)[1])));
  const width = Math.max(1, ...placed.map((row) => row.reduce((sum, p) => sum + size(p)[0] + gap, gap)));
  const canvas = new Canvas(width, Math.max(1, heights.reduce((sum, h) => sum + h + gap, gap)), [24, 24, 28]);
  let y = gap;
  placed.forEach((row, i) => {
    let x = gap;
    for (const { panel, plane } of row) {
      const { values, shape, boxes = [], window = percentileWindow(values), at } = panel;
      const index = Math.round(at?.[plane] ?? Math.floor(shape[plane] / 2));
      canvas.gray(values, shape, plane, Math.min(shape[plane] - 1, Math.max(0, index)), x, y, scale, window);
      for (const { box, colour } of boxes) canvas.box(box, shape, plane, x, y, scale, colour);
      x += planeSize(shape, plane, scale)[0] + gap;
    }
    y += heights[i] + gap;
  });
  return canvas;
}
