/** Masked autoencoding: hide random cubes of the input, reconstruct their voxels with the whole network. */
import { UserError } from "../errors.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import {
  cellOption,
  checkMask,
  encodeMasked,
  exchanged,
  hiddenCells,
  hiddenVoxels,
  hiddenWeights,
  ratioOption,
} from "./masking.ts";
import { defineMethod } from "./method.ts";

/**
 * Wald et al. 2025 ("Base" row): 75 % hidden, mean squared error on hidden voxels. CNNs: 16^3 cells, zero input; token
 * networks: whole tokens, dropped before the first block (Wald et al. 2025, OpenMind). Huber is stage 1 of CVA.
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
  compat: ["nnssl-loss-map"],
  bind({ arch, network, patch, options: { cell, ratio, loss: kind }, compat }) {
    const side = network.token ?? cell;
    checkMask(patch, side, ratio);
    const exchanges = compat.has("nnssl-loss-map");
    if (exchanges && (!network.token || patch[0] !== patch[1])) {
      throw new UserError(
        `--compat nnssl-loss-map is a defect of token networks on cubic patches, not of ${arch.name} at ${
          patch.join("x")
        }`,
      );
    }
    return {
      loss({ batch, random }) {
        const masked = encodeMasked(network, batch, patch, cell, ratio, random);
        const { pyramid, image, mask } = masked;
        const samples = batch.ids.length;
        const lost = exchanges ? exchanged(mask) : mask;
        const output = network.decode(pyramid, random, undefined, hiddenCells(lost));
        const loss = reconstructionLoss(output, image, hiddenWeights(lost, image.space), kind);
        return {
          loss,
          terms: { reconstruction: loss },
          output,
          get hidden() {
            return hiddenVoxels(lost, samples, patch, side);
          },
        };
      },
    };
  },
});
