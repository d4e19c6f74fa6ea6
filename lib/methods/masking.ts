/** Random block masks. */
import { UserError } from "../errors.ts";
import type { Network } from "../nn/network.ts";
import type { Rng } from "../rng.ts";
import { imagesOf } from "../data/images.ts";
import type { Batch } from "../data/loader.ts";
import { densify, gatherBlocks } from "../ops/densify.ts";
import { alone, Grid, type Layout, type Side, Tensor, volume } from "../tensor.ts";

/** Block masks of a batch. Visible = 1. */
export interface Mask {
  /** Cells per axis. */
  dims: Side;
  /** Visible cells, `[sample][z][y][x]`. */
  visible: Uint8Array;
}

/** Options that methods with masks share. */
export const cellOption = {
  default: 16,
  min: 1,
  whole: true,
  networks: "cnn",
  help: "side of a mask cell in voxels",
} as const;
export const ratioOption = {
  default: 0.75,
  min: 0,
  max: 1,
  help: "share of the cells (or tokens) that is hidden",
} as const;

/** Cells per axis of a patch. @throws UserError when the cell does not divide the patch */
export function cellsOf(patch: Side, cell: number): Side {
  if (patch.some((p) => p % cell)) {
    throw new UserError(
      `--patch ${patch.join("x")} is not a multiple of the mask cell ${cell}; use --cell or another patch`,
    );
  }
  return patch.map((p) => p / cell) as unknown as Side;
}

/**
 * The number of cells of one sample that a ratio hides, exactly floor(ratio * cells) (S3D section 3; MAE section 2.1).
 * @throws UserError when nothing would stay visible or hidden
 */
export function checkMask(patch: Side, cell: number, ratio: number): number {
  const cells = volume(cellsOf(patch, cell));
  const hidden = Math.floor(ratio * cells);
  if (hidden < 1 || hidden >= cells) {
    throw new UserError(
      `a mask ratio of ${ratio} hides ${hidden < 1 ? "none" : "all"} of the ${cells} cell${
        cells === 1 ? "" : "s"
      } of ${cell} voxels in a patch of ${
        patch.join("x")
      }; use another --option ratio, a smaller --cell or a larger --patch`,
    );
  }
  return hidden;
}

/**
 * Hides the same number of cells in each sample by a uniform random permutation.
 * @throws UserError as `checkMask`
 */
export function drawMask(random: Rng, samples: number, patch: Side, cell: number, ratio: number): Mask {
  const dims = cellsOf(patch, cell);
  const cells = volume(dims);
  const hidden = checkMask(patch, cell, ratio);
  const visible = new Uint8Array(samples * cells).fill(1);
  for (let n = 0; n < samples; n++) {
    random.permutation(cells).subarray(0, hidden).forEach((c) => visible[n * cells + c] = 0);
  }
  return { dims, visible };
}

/** 1 where a voxel is hidden, `[sample][z][y][x]`: the weight of the reconstruction loss. */
export function hiddenVoxels(mask: Mask, samples: number, patch: Side, cell: number): Float32Array {
  const [sz, sy, sx] = patch;
  const [gz, gy, gx] = mask.dims;
  const out = new Float32Array(samples * sz * sy * sx);
  let at = 0;
  for (let n = 0; n < samples; n++) {
    for (let z = 0; z < sz; z++) {
      for (let y = 0; y < sy; y++) {
        const row = ((n * gz + Math.floor(z / cell)) * gy + Math.floor(y / cell)) * gx;
        for (let x = 0; x < sx; x++) out[at++] = 1 - mask.visible[row + Math.floor(x / cell)];
      }
    }
  }
  return out;
}

/** 1 where a cell is hidden, as `Mask.visible`. */
export function hiddenCells({ visible }: Mask): Uint8Array {
  return visible.map((v) => 1 - v);
}

/** The voxels as a tensor on `layout`, made where the step is: weights of the reconstruction loss. */
export function hiddenWeights(mask: Mask, { grid, side }: Layout): Tensor {
  const { dims } = mask;
  const cells = new Grid(grid.samples, dims, hiddenCells(mask));
  const cell = side.map((s, d) => s / dims[d]) as unknown as Side;
  return alone(() =>
    densify(Tensor.full(1, cells.blocks * volume(cell), 1, { grid: cells, side: cell }), null, grid)
  );
}

/** What a masked network made of a batch: its pyramid, the images, and what was hidden, by voxel where somebody asks. */
export interface Masked {
  pyramid: Tensor[];
  image: Tensor;
  mask: Mask;
  readonly hidden: Float32Array;
}

/** The mask with its first two axes exchanged: the loss map of the published MAE on tokens (D05), cubes only. */
export function exchanged({ dims, visible }: Mask): Mask {
  const [z, y, x] = dims;
  const cells = z * y * x;
  return {
    dims,
    visible: visible.map((_, i) => {
      const [n, at] = [Math.floor(i / cells), i % cells];
      const [a, b] = [Math.floor(at / (y * x)), Math.floor(at / x) % y];
      return visible[n * cells + (b * y + a) * x + at % x];
    }),
  };
}

/** A batch with its mask, before any network has seen it. */
export type Hidden = Omit<Masked, "pyramid"> & { encode(network: Network, random: Rng): Tensor[] };

/**
 * Masks a batch. `encode` shows it to a network: a CNN sees zeros in hidden cells of `cell` voxels; a token network only its
 * visible tokens.
 */
export function maskBatch(
  network: Network,
  batch: Batch,
  patch: Side,
  cell: number,
  ratio: number,
  random: Rng,
): Hidden {
  const samples = batch.ids.length;
  const side = network.token ?? cell;
  const mask = drawMask(random, samples, patch, side, ratio);
  const image = imagesOf(batch, { grid: Grid.dense(samples), side: patch });
  return {
    image,
    mask,
    get hidden() {
      return hiddenVoxels(mask, samples, patch, side);
    },
    encode: (network, random) =>
      network.token
        ? network.encode(image, mask.visible, random)
        : network.encode(blanked(batch, image, mask), undefined, random),
  };
}

/** Masks a batch and encodes it, as `maskBatch`. */
export function encodeMasked(
  network: Network,
  batch: Batch,
  patch: Side,
  cell: number,
  ratio: number,
  random: Rng,
): Masked {
  const masked = maskBatch(network, batch, patch, cell, ratio, random);
  return Object.assign(masked, { pyramid: masked.encode(network, random) });
}

/** What the network gets of `image`, the images of `batch`, with hidden voxels set to 0, the mean intensity after z-scoring. */
export function blanked(batch: Batch, image: Tensor, mask: Mask): Tensor {
  if (!batch.views) {
    const { images, inputs = images } = batch;
    const { side } = image.space;
    const hidden = hiddenVoxels(mask, batch.ids.length, side, side[0] / mask.dims[0]);
    return Tensor.from(inputs.map((v, i) => hidden[i] ? 0 : v), 1, image.layout);
  }
  const { grid, side } = image.space;
  const cells = new Grid(grid.samples, mask.dims, mask.visible);
  return densify(
    gatherBlocks(batch.views.inputs(image), cells, side.map((s, d) => s / mask.dims[d]) as unknown as Side),
    null,
    grid,
  );
}
