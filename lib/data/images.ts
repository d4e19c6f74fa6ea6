/**
 * Images that are made together with the step, by the device that computes it: the loader only cuts the part of each volume
 * that a view reads, and draws what will happen to it. The numbers drawn are those of images made ahead.
 */
import { native } from "../native/library.ts";
import { Grid, type Layout, Tensor, volume } from "../tensor.ts";
import { type Change, kindOf } from "./augment.ts";
import type { Batch } from "./loader.ts";
import type { Triple, View } from "./views.ts";

/** A part of a volume, and what makes an image of it (`vx_view`). */
interface Recipe {
  /** Handle of the part; ours to free. */
  region: number;
  /** Its size and first voxel, the shape of the volume, the side of the image: z, y, x each. */
  bounds: Uint32Array;
  affine: Float64Array;
  /** Kind, parameter, seed of each change. */
  changes: Float64Array;
}

/** The images of a batch before they are made. Dispose it when the step is done. */
export class Views implements Disposable {
  readonly #recipes: Recipe[] = [];

  constructor(readonly patch: Triple) {}

  /** Cuts out what a view needs, as image `slot`. Changes have one parameter each. */
  async add(slot: number, from: Float32Array, shape: Triple, view: View, changes: Change[]): Promise<void> {
    const affine = Float64Array.from(view.affine.flat());
    const part = new Uint32Array(6);
    const region = await native().vx_view_region_wait(
      from,
      from.length,
      ...shape,
      affine,
      affine.length,
      ...this.patch,
      part,
      part.length,
    );
    this.#recipes[slot] = {
      region,
      bounds: Uint32Array.of(...part, ...shape, ...this.patch),
      affine,
      changes: Float64Array.from(changes.flatMap(({ kind, a, seed }) => [kindOf(kind), a, seed])),
    };
  }

  /** Makes the images: `[n][z][y][x]`, one channel. */
  tensor(layout: Layout): Tensor {
    const out = Tensor.full(0, this.#recipes.length * volume(this.patch), 1, layout);
    this.#recipes.forEach(({ region, bounds, affine, changes }, slot) =>
      native().vx_view(
        out.handle,
        slot,
        region,
        bounds,
        bounds.length,
        affine,
        affine.length,
        0,
        changes,
        changes.length,
      )
    );
    return out;
  }

  /** Makes the images and waits for them: for reports, and methods that know no tensors of images. */
  read(): Float32Array {
    using grid = Grid.dense(this.#recipes.length);
    using images = this.tensor({ grid, side: this.patch });
    return images.read();
  }

  [Symbol.dispose](): void {
    for (const { region } of this.#recipes.splice(0)) native().vx_tensor_free(region);
  }
}

/** A batch whose images are made with the step. Asking for `images` makes them once more, and waits. */
export class ViewBatch implements Batch {
  constructor(readonly views: Views, readonly overlap: Float32Array, readonly ids: string[]) {}

  get images(): Float32Array {
    return this.views.read();
  }
}

/** The images of a batch as a tensor. */
export function imagesOf(batch: Batch, layout: Layout): Tensor {
  return batch.views?.tensor(layout) ?? Tensor.from(batch.images, 1, layout);
}
