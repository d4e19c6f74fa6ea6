/**
 * What an encoder has learned, as colours: both views of crop pairs, per level of the pyramid the first three principal
 * components of its features as red, green and blue. The components are those of both views together, so the same
 * feature has the same colour in both; where features are consistent, the same anatomy has the same colour.
 */
import { Tape } from "../autograd.ts";
import { sampleView } from "../data/sample.ts";
import type { Source } from "../data/loader.ts";
import { drawPair, type Triple } from "../data/views.ts";
import type { Network } from "../nn/network.ts";
import { Grid, scope, type Side, Tensor } from "../tensor.ts";
import { COLOURS } from "./pairs.ts";
import { principal, project } from "./principal.ts";
import { Canvas, percentileWindow, type Plane, planeSize } from "./slices.ts";

const PLANES: readonly Plane[] = [0, 1, 2];
const GAP = 4;
/** Levels with more values than this per view are left out: a page of pictures must not need more memory than training. */
const MOST_VALUES = 2 ** 25;
/** Rows that the components are fitted on: so many that the covariance costs about a second. */
const rowsFor = (channels: number) => Math.max(512, Math.min(16384, Math.floor(2 ** 30 / channels ** 2)));

/** Features of one level: rows [z][y][x] of channels. */
export interface Level {
  side: Side;
  channels: number;
  values: Float32Array;
}

/** Three numbers per voxel of a grid, as colours between 0 and 255 by the 1st and 99th percentile of both views. */
export interface Colours {
  side: Side;
  rgb: Float32Array[];
}

/** Levels of the pyramid of `image` [z, y, x], full resolution first; the largest are left out. */
export async function features(network: Network, image: Float32Array, patch: Side): Promise<Level[]> {
  return await scope(() => {
    const pyramid = Tape.none(() =>
      network.encode(Tensor.from(image, 1, { grid: Grid.dense(1), side: patch }))
    );
    return pyramid.filter((level) => level.length <= MOST_VALUES).map((level) => {
      return { side: level.space.side, channels: level.channels, values: level.read() };
    });
  });
}

/** Colours of the same level of several views, by components fitted on all of them; `share`: of the variance shown. */
export function colours(levels: Level[]): { views: Colours[]; share: number } {
  const [{ channels }] = levels;
  const counts = levels.map(({ values }) => values.length / channels);
  const all = counts.reduce((a, b) => a + b, 0);
  const step = Math.max(1, Math.floor(all / rowsFor(channels)));
  const sample = new Float32Array(Math.ceil(all / step) * channels);
  for (let row = 0, to = 0; row < all; row += step, to += channels) {
    let [view, at] = [0, row];
    while (at >= counts[view]) at -= counts[view++];
    sample.set(levels[view].values.subarray(at * channels, (at + 1) * channels), to);
  }
  const found = principal(sample, channels);
  const shown = levels.map(({ values }) => project(values, found));
  const windows = found.components.map((_, i) => {
    const joined = new Float32Array(all);
    let at = 0;
    for (const components of shown) {
      joined.set(components[i], at);
      at += components[i].length;
    }
    return percentileWindow(joined, 1, 99);
  });
  const views = shown.map((components, v): Colours => ({
    side: levels[v].side,
    rgb: components.map((values, i) => {
      const [low, high] = windows[i];
      return values.map((value) => 255 * (value - low) / (high - low));
    }),
  }));
  const sum = found.variance.reduce((a, b) => a + b, 0);
  return { views, share: found.total > 0 ? sum / found.total : 1 };
}

/** Draws slice `index` (in voxels of `patch`) of a coarser grid: linear between the centres of its cells. */
function paint(
  canvas: Canvas,
  { side, rgb }: Colours,
  patch: Side,
  plane: Plane,
  index: number,
  [x0, y0]: readonly [number, number],
  scale: number,
): void {
  const [row, column] = [0, 1, 2].filter((d) => d !== plane);
  const [width, height] = planeSize(patch, plane, scale);
  const point = [0, 0, 0];
  point[plane] = index + 0.5;
  for (let y = 0; y < height; y++) {
    point[row] = patch[row] - (y + 0.5) / scale;
    for (let x = 0; x < width; x++) {
      point[column] = (x + 0.5) / scale;
      const colour = [0, 0, 0];
      const cells = point.map((p, d) => {
        const at = Math.min(side[d] - 1, Math.max(0, p * side[d] / patch[d] - 0.5));
        const low = Math.min(side[d] - 1, Math.floor(at));
        return { low, high: Math.min(side[d] - 1, low + 1), part: at - low };
      });
      for (let corner = 0; corner < 8; corner++) {
        let [weight, position] = [1, 0];
        cells.forEach(({ low, high, part }, d) => {
          const upper = corner >> d & 1;
          weight *= upper ? part : 1 - part;
          position = position * side[d] + (upper ? high : low);
        });
        if (weight > 0) rgb.forEach((values, i) => colour[i] += weight * values[position]);
      }
      const [red, green, blue] = colour.map((v) => Math.round(Math.min(255, Math.max(0, v))));
      canvas.dot(x0 + x, y0 + y, [red, green, blue]);
    }
  }
}

/** Pictures of pairs with their captions. */
export interface FeaturePicture {
  name: string;
  png: Uint8Array;
}

/**
 * One picture per pair (pair 0 and on of `seed`, without turns and flips, so that both views stand alike): the input, then
 * each level; view a in three planes, then view b, all through the middle of what they share, which is boxed in yellow.
 */
export async function featurePictures(
  network: Network,
  store: Source,
  patch: Triple,
  seed: number,
  count: number,
): Promise<FeaturePicture[]> {
  const pictures: FeaturePicture[] = [];
  const scale = Math.max(1, Math.round(96 / Math.max(...patch)));
  for (let index = 0; index < count; index++) {
    const pair = drawPair(seed, index, store.volumes, patch, false);
    const shape = store.get(pair.volume)!.shape;
    const source = await store.read(pair.volume);
    const images = [await sampleView(source, shape, pair.a), await sampleView(source, shape, pair.b)];
    const pyramids = [await features(network, images[0], patch), await features(network, images[1], patch)];
    const levels = pyramids[0].map((level, i) => ({ level, ...colours([level, pyramids[1][i]]) }));
    const wide = PLANES.reduce<number>((sum, plane) => sum + planeSize(patch, plane, scale)[0] + GAP, 0);
    const tall = Math.max(patch[0], patch[1]) * scale + GAP;
    const canvas = new Canvas(2 * wide + 3 * GAP, tall * (1 + levels.length) + GAP, [24, 24, 28]);
    const window = percentileWindow(images[0]);
    (["a", "b"] as const).forEach((name, v) => {
      const box = pair.overlap[name].map((share, d) => share * patch[d % 3]);
      const middle = patch.map((side, d) => Math.min(side - 1, Math.floor((box[d] + box[d + 3]) / 2)));
      for (let row = 0; row <= levels.length; row++) {
        let x = GAP + v * (wide + GAP);
        const y = GAP + row * tall;
        for (const plane of PLANES) {
          if (row) paint(canvas, levels[row - 1].views[v], patch, plane, middle[plane], [x, y], scale);
          else canvas.gray(images[v], patch, plane, middle[plane], x, y, scale, window);
          canvas.box([0, 0, 0, ...patch], patch, plane, x, y, scale, COLOURS[name]);
          canvas.box(box, patch, plane, x, y, scale, COLOURS.overlap);
          x += planeSize(patch, plane, scale)[0] + GAP;
        }
      }
    });
    const grids = levels.map(({ level, share }) =>
      `${level.side.join("x")} x ${level.channels} channels (${Math.round(100 * share)} % of the variance)`
    );
    pictures.push({
      name: `${pair.volume}: input, then features ${grids.join(", ")}`,
      png: await canvas.png(),
    });
  }
  return pictures;
}

/** What the pictures show, for the page. */
export const EXPLANATION =
  "Three principal components of the encoder's features as red, green and blue, view a (orange) " +
  "and view b (blue) in three planes through the middle of what they share (yellow): same colour, same feature.";
