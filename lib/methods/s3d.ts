/**
 * S3D: sparse masked autoencoding for CNNs. The encoder computes and stores visible blocks only; holes are filled with
 * a learned token per level before an ordinary decoder reconstructs them.
 */
import { UserError } from "../errors.ts";
import { conv3d } from "../ops/conv3d.ts";
import { densify, gatherBlocks } from "../ops/densify.ts";
import { instanceNorm } from "../ops/norm.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import type { Rng } from "../rng.ts";
import { Grid, type Side, Tensor, volume } from "../tensor.ts";
import { cellOption, cellsOf, drawMask, hiddenVoxels } from "./masking.ts";
import { defineMethod } from "./method.ts";

/** Normal with standard deviation 0.02, cut at 0.02 on both sides. */
function tokenValue(rng: Rng): number {
  for (;;) {
    const value = 0.02 * rng.normal();
    if (Math.abs(value) <= 0.02) return value;
  }
}

/** Wald et al. 2025, section 3: 32^3 cells (16^3 in the released code), ratio U(0.6, 0.9) drawn once per batch. */
export const s3d = defineMethod({
  name: "s3d",
  citation:
    "Wald et al. 2025, Revisiting MAE pre-training for 3D medical image segmentation, arXiv 2410.23132",
  summary: "sparse encoder over visible blocks, tokens in the holes, ratio U(0.6, 0.9)",
  views: 1,
  networks: "cnn",
  sparse: true,
  options: {
    cell: { ...cellOption, default: 32 },
    low: { default: 0.6, min: 0, max: 1, help: "lowest share of the cells that a batch hides" },
    high: { default: 0.9, min: 0, max: 1, help: "highest share; equal to low: a static ratio" },
  },
  bind({ network, parameters, patch, options }) {
    const tokens = network.features.map((c, i) => parameters.add(`mask_tokens.${i}`, [c], tokenValue));
    const projections = network.features.map((c, i) =>
      i === 0 ? null : parameters.affine(`densify_projs.${i}`, [c, c, 3, 3, 3], 27 * c, c)
    );
    const cell = options.cell;
    const cells = volume(cellsOf(patch, cell));
    // One cell at least is hidden and two stay visible: a norm over one voxel has no variance.
    const [low, high] = [Math.max(options.low, 1 / cells), Math.min(options.high, (cells - 2) / cells)];
    if (low > high) {
      throw new UserError(
        `mask ratios from ${options.low} to ${options.high} leave nothing to hide or to see in ${cells} cells of ` +
          `${cell} voxels; use other --option low and high, a smaller --cell or a larger --patch`,
      );
    }
    return {
      loss({ batch, random }) {
        const samples = batch.images.length / volume(patch);
        const ratio = Math.min(Math.max(random.uniform(options.low, options.high), low), high);
        const mask = drawMask(random, samples, patch, cell, ratio);
        const hidden = hiddenVoxels(mask, samples, patch, cell);
        const dense = Grid.dense(samples);
        const image = Tensor.from(batch.images, 1, { grid: dense, side: patch });
        const visible = new Grid(samples, mask.dims, mask.visible);
        const pyramid = network.encode(gatherBlocks(image, visible, [cell, cell, cell] as Side));
        const filled = pyramid.map((level, i) => {
          const normed = instanceNorm(level, null, null);
          const full = level.space.grid === visible ? densify(normed, tokens[i], dense) : normed;
          return projections[i] ? conv3d(full, projections[i].weight, projections[i].bias) : full;
        });
        const output = network.decode(filled);
        const weight = Tensor.from(hidden, 1, { grid: dense, side: patch });
        const loss = reconstructionLoss(output, image, weight, "mse");
        return { loss, terms: { reconstruction: loss }, output, hidden };
      },
    };
  },
});
