/** Augmentation reversal: from a masked crop with changed intensities, reconstruct the crop as it was. */
import { imagesOf } from "../data/images.ts";
import { scale } from "../ops/elementwise.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { Grid, type Side, volume } from "../tensor.ts";
import { blanked, cellOption, cellsOf, checkMask, drawMask, hiddenVoxels, hiddenWeights } from "./masking.ts";
import { defineMethod } from "./method.ts";

/**
 * The ratio for `drawMask` that keeps floor(cells * (1 - ratio)) cells, as AMAES does: 13,107 of 32,768 at 0.6. The half
 * keeps rounding out of it.
 */
function hiddenShare(patch: Side, cell: number, ratio: number): number {
  const cells = volume(cellsOf(patch, cell));
  return (cells - Math.floor(cells * (1 - ratio)) + 0.5) / cells;
}

/** Munk et al. 2024: 4^3 cells, 60 % hidden, zero input, mean squared error on all voxels, a light decoder with no skips. */
export const amaes = defineMethod({
  name: "amaes",
  citation: "Munk et al. 2024, AMAES: Augmented Masked Autoencoder Pretraining on Public Brain MRI Data",
  summary: "hide 60 % of the 4^3 cells and change intensities, reconstruct what was there",
  views: 1,
  reversal: true,
  light: true,
  preset: "amaes",
  networks: "cnn",
  compat: ["amaes-hidden-mean"],
  options: {
    cell: { ...cellOption, default: 4 },
    ratio: { default: 0.6, min: 0, max: 1, help: "share of the cells that is hidden" },
    voxels: { default: "all", choices: ["all", "hidden"], help: "voxels that the loss counts" },
  },
  bind({ network, patch, options: { cell, ratio, voxels }, compat }) {
    checkMask(patch, cell, ratio);
    const share = hiddenShare(patch, cell, ratio);
    return {
      loss({ batch, random }) {
        const samples = batch.ids.length;
        const layout = { grid: Grid.dense(samples), side: patch };
        const mask = drawMask(random, samples, patch, cell, share);
        const target = imagesOf(batch, layout);
        const output = network.decode(network.encode(blanked(batch, target, mask)));
        const weight = voxels === "hidden" ? hiddenWeights(mask, layout) : null;
        const reconstruction = reconstructionLoss(output, target, weight, "mse");
        // D19: the published loss on hidden voxels is a mean over all voxels.
        const published = weight && compat.has("amaes-hidden-mean");
        const loss = published
          ? scale(reconstruction, mask.visible.filter((v) => !v).length / mask.visible.length)
          : reconstruction;
        return {
          loss,
          terms: { reconstruction: loss },
          output,
          get hidden() {
            return hiddenVoxels(mask, samples, patch, cell);
          },
          ...(weight ? {} : { whole: true as const }),
        };
      },
    };
  },
});
