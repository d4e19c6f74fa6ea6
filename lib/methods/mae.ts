/**
 * Masked autoencoding: hide random cubes of the input, reconstruct their voxels with the whole network. Networks on
 * tokens hide whole tokens, which their encoder then never sees (methods.md section 2.5).
 */
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { Grid, Tensor, volume } from "../tensor.ts";
import { cellOption, checkMask, drawMask, hiddenVoxels, hide, ratioOption } from "./masking.ts";
import { defineMethod } from "./method.ts";

/** Wald et al. 2025 ("Base" row): 16^3 cells, 75 % hidden, zero input, mean squared error on hidden voxels. */
export const mae = defineMethod({
  name: "mae",
  citation:
    "Wald et al. 2025, Revisiting MAE pre-training for 3D medical image segmentation, arXiv 2410.23132",
  summary: "hide 75 % of the 16^3 cells, reconstruct them",
  views: 1,
  options: {
    cell: cellOption,
    ratio: ratioOption,
    loss: { default: "mse", choices: ["mse", "huber", "l1"], help: "loss per hidden voxel" },
  },
  bind({ network, patch, options: { cell, ratio, loss: kind } }) {
    const side = network.token ?? cell;
    checkMask(patch, side, ratio);
    return {
      loss({ batch, random }) {
        const samples = batch.images.length / volume(patch);
        const layout = { grid: Grid.dense(samples), side: patch };
        const mask = drawMask(random, samples, patch, side, ratio);
        const hidden = hiddenVoxels(mask, samples, patch, side);
        const image = Tensor.from(batch.images, 1, layout);
        const pyramid = network.token
          ? network.encode(image, mask.visible, random)
          : network.encode(Tensor.from(hide(batch.images, hidden), 1, layout));
        const output = network.decode(pyramid, random);
        const loss = reconstructionLoss(output, image, Tensor.from(hidden, 1, layout), kind);
        return { loss, terms: { reconstruction: loss }, output, hidden };
      },
    };
  },
});
