/** A picture of crop pairs: where both views lie in their volume, and what the network sees of them. */
import { sampleView } from "../data/sample.ts";
import { type Pair, place, sideOf, type Triple, type View } from "../data/views.ts";
import { Canvas, type Colour, percentileWindow, type Plane, planeSize } from "./slices.ts";

/** View a is orange, view b blue, what they share yellow. */
export const COLOURS: { a: Colour; b: Colour; overlap: Colour } = {
  a: [255, 140, 40],
  b: [80, 160, 255],
  overlap: [255, 240, 90],
};
const PLANES: readonly Plane[] = [0, 1, 2];
const GAP = 6;

/** A pair with the voxels [z, y, x] of its volume. */
export interface Shown {
  pair: Pair;
  volume: Float32Array;
  shape: Triple;
}

/** Map of a point of the stored volume (edge coordinates) to fractions of the view. */
function locate(view: View): (point: readonly number[]) => number[] {
  const m = view.affine;
  const cofactor = (r: number, c: number) => {
    const [i, j] = [0, 1, 2].filter((v) => v !== r);
    const [k, l] = [0, 1, 2].filter((v) => v !== c);
    return (m[i][k] * m[j][l] - m[i][l] * m[j][k]) * ((r + c) % 2 ? -1 : 1);
  };
  const determinant = m[0][0] * cofactor(0, 0) + m[0][1] * cofactor(0, 1) + m[0][2] * cofactor(0, 2);
  const side = sideOf(view);
  const inverse = side.map((s, r) => [0, 1, 2].map((c) => cofactor(c, r) / determinant / s));
  return (point) => {
    const d = point.map((v, i) => v - m[i][3]);
    return inverse.map((r) => r[0] * d[0] + r[1] * d[1] + r[2] * d[2]);
  };
}

/** Outlines, on a slice drawn at (x0, y0), the region where `inside` holds for points of the volume. */
function outline(
  canvas: Canvas,
  inside: (point: number[]) => boolean,
  shape: Triple,
  plane: Plane,
  index: number,
  [x0, y0]: [number, number],
  scale: number,
  colour: Colour,
): void {
  const [width, height] = planeSize(shape, plane, scale);
  const [row, column] = [0, 1, 2].filter((d) => d !== plane);
  const at = (x: number, y: number) => {
    if (x < 0 || y < 0 || x >= width || y >= height) return false;
    const point = [0, 0, 0];
    point[plane] = index + 0.5;
    point[row] = shape[row] - (y + 0.5) / scale;
    point[column] = (x + 0.5) / scale;
    return inside(point);
  };
  const hit = Array.from({ length: height }, (_, y) => Array.from({ length: width }, (_, x) => at(x, y)));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const within = hit[y - 1]?.[x] && hit[y + 1]?.[x] && hit[y][x - 1] && hit[y][x + 1];
      if (hit[y][x] && !within) canvas.dot(x0 + x, y0 + y, colour);
    }
  }
}

/**
 * One row per pair: three planes of the volume through the middle of the overlap with the outlines of a, b and overlap
 * (turned as the views are), then three planes of view a and of view b with the overlap. The same anatomy lies at the
 * same fraction of both yellow boxes.
 */
export async function pairsPicture(shown: Shown[]): Promise<Canvas> {
  const tall = (shape: Triple) => Math.max(shape[0], shape[1]);
  const scale = Math.max(1, Math.round(160 / Math.max(...shown.flatMap(({ shape }) => shape))));
  const sizes = shown.map(({ pair, shape }) => {
    const patch = sideOf(pair.a);
    const wide = (s: Triple) => PLANES.reduce<number>((sum, p) => sum + planeSize(s, p, scale)[0] + GAP, 0);
    return [wide(shape) + 2 * wide(patch) + 3 * GAP, Math.max(tall(shape), tall(patch)) * scale + GAP];
  });
  const total = sizes.reduce((sum, s) => sum + s[1], GAP);
  const canvas = new Canvas(Math.max(...sizes.map((s) => s[0])), total, [24, 24, 28]);
  let y = GAP;
  for (const [i, { pair, volume, shape }] of shown.entries()) {
    const window = percentileWindow(volume);
    const patch = sideOf(pair.a);
    const middle = (name: "a" | "b") =>
      patch.map((side, d) => side * (pair.overlap[name][d] + pair.overlap[name][d + 3]) / 2);
    const slice = (point: number[], s: Triple) =>
      point.map((v, d) => Math.min(s[d] - 1, Math.max(0, Math.floor(v))));
    const within = (find: ReturnType<typeof locate>, box: readonly number[]) => (point: number[]) =>
      find(point).every((v, d) => v >= box[d] && v <= box[d + 3]);
    const [a, b] = [locate(pair.a), locate(pair.b)];
    const regions = [
      [within(a, [0, 0, 0, 1, 1, 1]), COLOURS.a],
      [within(b, [0, 0, 0, 1, 1, 1]), COLOURS.b],
      [within(a, pair.overlap.a), COLOURS.overlap],
    ] as const;
    let x = GAP;
    const index = slice(place(pair.a, middle("a")), shape);
    for (const plane of PLANES) {
      canvas.gray(volume, shape, plane, index[plane], x, y, scale, window);
      for (const [inside, colour] of regions) {
        outline(canvas, inside, shape, plane, index[plane], [x, y], scale, colour);
      }
      x += planeSize(shape, plane, scale)[0] + GAP;
    }
    for (const name of ["a", "b"] as const) {
      const values = await sampleView(volume, shape, pair[name]);
      const at = slice(middle(name), patch);
      const overlap = pair.overlap[name].map((v, d) => v * patch[d % 3]);
      x += GAP;
      for (const plane of PLANES) {
        canvas.gray(values, patch, plane, at[plane], x, y, scale, window);
        canvas.box([0, 0, 0, ...patch], patch, plane, x, y, scale, COLOURS[name]);
        canvas.box(overlap, patch, plane, x, y, scale, COLOURS.overlap);
        x += planeSize(patch, plane, scale)[0] + GAP;
      }
    }
    y += sizes[i][1];
  }
  return canvas;
}
