/**
 * S3D: sparse masked autoencoding for CNNs. The encoder computes and stores visible blocks only; holes are filled with
 * a learned token per level before an ordinary decoder reconstructs them.
 */
import { imagesOf } from "../data/images.ts";
import { UserError } from "../errors.ts";
import { conv3d } from "../ops/conv3d.ts";
import { densify, gatherBlocks } from "../ops/densify.ts";
import { instanceNorm } from "../ops/norm.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import type { Rng } from "../rng.ts";
import { Grid, type Side, Tensor, volume } from "../tensor.ts";
import { blanked, cellOption, cellsOf, drawMask, hiddenVoxels, hiddenWeights } from "./masking.ts";
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
    high: { default: 0.9, min: 0, max: 1, help: "highest share" },
    ratio: { default: 0.75, min: 0, max: 1, help: "the share, with dynamic=false" },
    dynamic: { default: true, help: "a new share for every batch, from low to high" },
    sparse: {
      default: true,
      help: "the encoder computes visible blocks only; false: all of the zeroed input",
    },
    token: { default: true, help: "norm, and a learned token in the holes of every level; false: zeros" },
    densify: { default: true, help: "a 3^3 convolution over every level but the first after that" },
  },
  compat: ["nnssl-sparse-input"],
  bind({ arch, network, parameters, patch, options, compat }) {
    const tokens = network.features.map((c, i) =>
      options.token ? parameters.add(`mask_tokens.${i}`, [c], tokenValue) : null
    );
    const projections = network.features.map((c, i) =>
      i && options.densify ? parameters.affine(`densify_projs.${i}`, [c, c, 3, 3, 3], 27 * c, c) : null
    );
    const leaks = compat.has("nnssl-sparse-input");
    if (leaks && !(network.gathers && options.sparse)) {
      throw new UserError(
        `--compat nnssl-sparse-input needs a sparse encoder that repeats it; ${arch.name}${
          options.sparse ? " does not" : " runs dense here"
        }, use resenc-s or resenc-l with --option sparse=true`,
      );
    }
    const cell = options.cell;
    const [lowest, highest] = options.dynamic ? [options.low, options.high] : [options.ratio, options.ratio];
    const cells = volume(cellsOf(patch, cell));
    // One cell at least is hidden and two stay visible: a norm over one voxel has no variance.
    const [low, high] = [Math.max(lowest, 1 / cells), Math.min(highest, (cells - 2) / cells)];
    if (low > high) {
      throw new UserError(
        `mask ratios from ${lowest} to ${highest} leave nothing to hide or to see in ${cells} cells of ` +
          `${cell} voxels; use other --option low and high (or ratio), a smaller --cell or a larger --patch`,
      );
    }
    return {
      loss({ batch, random }) {
        const samples = batch.ids.length;
        const ratio = Math.min(
          Math.max(options.dynamic ? random.uniform(lowest, highest) : lowest, low),
          high,
        );
        const mask = drawMask(random, samples, patch, cell, ratio);
        const dense = Grid.dense(samples);
        const image = imagesOf(batch, { grid: dense, side: patch });
        const visible = new Grid(samples, mask.dims, mask.visible);
        const blocks = (x: Tensor) =>
          gatherBlocks(x, visible, x.space.side.map((s, d) => s / mask.dims[d]) as unknown as Side);
        const pyramid = leaks ? network.encode(image, undefined, random, blocks) : network.encode(
          options.sparse ? blocks(image) : blanked(batch, image, mask),
          undefined,
          random,
        );
        const filled = pyramid.map((level, i) => {
          const { grid, side } = level.space;
          // A level coarser than the cells has no holes.
          const holed = grid === visible || side.every((s, d) => s % mask.dims[d] === 0);
          const seen = holed && grid !== visible ? blocks(level) : level;
          const normed = tokens[i] ? instanceNorm(seen, null, null) : seen;
          const full = holed ? densify(normed, tokens[i], dense) : normed;
          return projections[i] ? conv3d(full, projections[i].weight, projections[i].bias) : full;
        });
        const output = network.decode(filled);
        const weight = hiddenWeights(mask, image.space);
        const loss = reconstructionLoss(output, image, weight, "mse");
        return {
          loss,
          terms: { reconstruction: loss },
          output,
          get hidden() {
            return hiddenVoxels(mask, samples, patch, cell);
          },
        };
      },
    };
  },
});
