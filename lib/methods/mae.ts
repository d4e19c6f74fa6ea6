/** Masked autoencoding: hide random cubes of the input, reconstruct their voxels with the whole network. */
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { Tensor } from "../tensor.ts";
import { cellOption, checkMask, encodeMasked, ratioOption } from "./masking.ts";
import { defineMethod } from "./method.ts";

/**
 * Wald et al. 2025 ("Base" row): 75 % hidden, mean squared error on hidden voxels. CNNs: 16^3 cells, zero input; token
 * networks: whole tokens, dropped before the first block (methods.md 2.1, 2.5). Huber is stage 1 of CVA.
 */
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
    checkMask(patch, network.token ?? cell, ratio);
    return {
      loss({ batch: { images }, random }) {
        const { pyramid, image, hidden } = encodeMasked(network, images, patch, cell, ratio, random);
        const output = network.decode(pyramid, random);
        const loss = reconstructionLoss(output, image, Tensor.from(hidden, 1, image.layout), kind);
        return { loss, terms: { reconstruction: loss }, output, hidden };
      },
    };
  },
});
