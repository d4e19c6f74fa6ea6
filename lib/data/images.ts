/**
 * Images that are made together with the step, by the device that computes it: the loader only cuts the part of each volume
 * that a view reads, and draws what will happen to it. The numbers drawn are those of images made ahead.
 */
import { native } from "../native/library.ts";
import { concat } from "../ops/concat.ts";
import { Grid, type Layout, Tensor, volume } from "../tensor.ts";
import { type Change, kindOf } from "./augment.ts";
import type { Batch } from "./loader.ts";
import type { Elastic } from "./sample.ts";
import type { Triple, View } from "./views.ts";

/** A part of a volume, and what makes an image of it (`vx_view`, `vx_view_change`). */
interface Recipe {
  /** Handle of the part; ours to free. */
  region: number;
  /** Its size and first voxel, the shape of the volume, the side of the image: z, y, x each. */
  bounds: Uint32Array;
  affine: Float64Array;
  fill: number;
  linear: boolean;
  /** Sigma, alpha, seed; or empty. */
  elastic: Float64Array;
  /** Kind, three parameters (NaN: none) and seed of each change. */
  changes: Float64Array;
}

/** What happens to a view beside its geometry. */
export interface Treatment {
  changes: Change[];
  elastic?: Elastic;
  /** The volume's least value outside of it, not 0. */
  least?: boolean;
  /** Linear between voxels, not by cubic B-splines. */
  linear?: boolean;
}

/** The images of a batch before they are made. Dispose it when the step is done. */
export class Views implements Disposable {
  /** Of each channel, by slot. */
  readonly #recipes: Recipe[][];
  readonly reversal: boolean;

  /** @param o `channels` of each image, or 1; `reversal`: changes are of the inputs only, as AMAES has them (one channel) */
  constructor(readonly patch: Triple, o: { channels?: number; reversal?: boolean } = {}) {
    this.#recipes = Array.from({ length: o.channels ?? 1 }, () => []);
    this.reversal = o.reversal ?? false;
  }

  /** Cuts out what a channel of image `slot` reads of a volume `[z][y][x][channel]`. */
  async add(
    slot: number,
    from: Float32Array,
    shape: Triple,
    view: View,
    o: Treatment,
    channel = 0,
  ): Promise<void> {
    const affine = Float64Array.from(view.affine.flat());
    const { sigma = 0, alpha = 0, seed = 0 } = o.elastic ?? {};
    const elastic = Float64Array.from(o.elastic ? [sigma, alpha, seed] : []);
    const [part, fill] = [new Uint32Array(6), new Float32Array(o.least ? 1 : 0)];
    const region = await native().vx_view_region_wait(
      from,
      from.length,
      ...shape,
      channel,
      this.#recipes.length,
      affine,
      affine.length,
      elastic,
      elastic.length,
      ...this.patch,
      part,
      part.length,
      fill,
      fill.length,
    );
    const numbers = (
      { kind, a, more: [b, c] = [], seed }: Change,
    ) => [kindOf(kind), a, b ?? NaN, c ?? NaN, seed];
    this.#recipes[channel][slot] = {
      region,
      bounds: Uint32Array.of(...part, ...shape, ...this.patch),
      affine,
      fill: fill[0] ?? 0,
      linear: o.linear ?? false,
      elastic,
      changes: Float64Array.from(o.changes.flatMap(numbers)),
    };
  }

  /** Brings the parts to the device that will make the images, while it still computes something else. */
  send(): void {
    const handles = Uint32Array.from(this.#recipes.flat(), ({ region }) => region);
    native().vx_tensors_send(handles, handles.length);
  }

  /** Makes the images: `[n][z][y][x][channel]`. */
  tensor(layout: Layout): Tensor {
    const planes = this.#recipes.map((recipes, channel) => {
      const out = Tensor.full(0, recipes.length * volume(this.patch), 1, layout);
      recipes.forEach(({ region, bounds, affine, fill, linear, elastic }, slot) => {
        const geometry = [
          bounds,
          bounds.length,
          affine,
          affine.length,
          fill,
          linear,
          elastic,
          elastic.length,
        ] as const;
        native().vx_view(out.handle, slot, region, ...geometry);
      });
      if (!this.reversal) this.#change(out, channel);
      return out;
    });
    return planes.reduce((a, b) => concat(a, b));
  }

  /** What the network gets of the images that `tensor` made. */
  inputs(images: Tensor): Tensor {
    if (!this.reversal) return images;
    const out = images.clone();
    this.#change(out, 0);
    return out;
  }

  /** The values of images or of inputs of one channel, made and waited for: for reports, and methods that know no tensors of images. */
  read(inputs = false): Float32Array {
    using grid = Grid.dense(this.#recipes[0].length);
    using images = this.tensor({ grid, side: this.patch });
    if (!inputs) return images.read();
    using changed = this.inputs(images);
    return changed.read();
  }

  #change(images: Tensor, channel: number): void {
    this.#recipes[channel].forEach(({ changes }, slot) => {
      if (!changes.length) return;
      native().vx_view_change(images.handle, slot, ...this.patch, changes, changes.length, this.reversal);
    });
  }

  [Symbol.dispose](): void {
    for (const recipes of this.#recipes) {
      for (const { region } of recipes.splice(0)) native().vx_tensor_free(region);
    }
  }
}

/** A batch whose images are made with the step. Asking for their values makes them once more, and waits. */
export class ViewBatch implements Batch {
  constructor(readonly views: Views, readonly overlap: Float32Array, readonly ids: string[]) {}

  get images(): Float32Array {
    return this.views.read();
  }

  get inputs(): Float32Array | undefined {
    return this.views.reversal ? this.views.read(true) : undefined;
  }
}

/** The images of a batch as a tensor. */
export function imagesOf(batch: Batch, layout: Layout): Tensor {
  return batch.views?.tensor(layout) ?? Tensor.from(batch.images, 1, layout);
}
