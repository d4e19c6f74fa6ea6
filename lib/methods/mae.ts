/** Masked autoencoding: hide random cubes of the input, reconstruct their voxels with the whole U-Net. */
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { Grid, Tensor, volume } from "../tensor.ts";
import { drawMask, hiddenVoxels, hide } from "./masking.ts";
import type { Method } from "./method.ts";

/** Wald et al. 2025 ("Base" row): 16^3 cells, 75 % hidden, zero input, mean squared error on hidden voxels. */
export const mae: Method = {
  name: "mae",
  citation:
    "Wald et al. 2025, Revisiting MAE pre-training for 3D medical image segmentation, arXiv 2410.23132",
  summary: "hide 75 % of the 16^3 cells, reconstruct them",
  views: 1,
  options: { cell: 16, ratio: 0.75 },
  terms: ["reconstruction"],
  bind({ network, patch, options }) {
    return {
      loss({ batch, random }) {
        const samples = batch.images.length / volume(patch);
        const layout = { grid: Grid.dense(samples), side: patch };
        const hidden = hiddenVoxels(
          drawMask(random, samples, patch, options.cell, options.ratio),
          samples,
          patch,
          options.cell,
        );
        const output = network.decode(network.encode(Tensor.from(hide(batch.images, hidden), 1, layout)));
        const loss = reconstructionLoss(
          output,
          Tensor.from(batch.images, 1, layout),
          Tensor.from(hidden, 1, layout),
          "mse",
        );
        return { loss, terms: { reconstruction: loss }, output, hidden };
      },
    };
  },
};
