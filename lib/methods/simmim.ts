/** SimMIM: hidden tokens are swapped for a mask token before the trunk, voxels come straight from its output. */
import { imagesOf } from "../data/images.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { Grid } from "../tensor.ts";
import { checkMask, drawMask, hiddenVoxels, hiddenWeights, ratioOption } from "./masking.ts";
import { defineMethod } from "./method.ts";

/** 75 % of the 8^3 tokens hidden, mean squared error on hidden voxels (Xie et al. 2022, OpenMind). */
export const simmim = defineMethod({
  name: "simmim",
  citation: "Xie et al. 2022, SimMIM: A simple framework for masked image modeling; on Primus in OpenMind",
  summary: "swap 75 % of the 8^3 tokens for a mask token, reconstruct them",
  views: 1,
  options: { ratio: ratioOption },
  networks: "token",
  build: () => ({ hidden: "swap" }),
  bind({ network, patch, options: { ratio } }) {
    const cell = network.token!;
    checkMask(patch, cell, ratio);
    return {
      loss({ batch, random }) {
        const samples = batch.ids.length;
        const layout = { grid: Grid.dense(samples), side: patch };
        const mask = drawMask(random, samples, patch, cell, ratio);
        const image = imagesOf(batch, layout);
        const output = network.decode(network.encode(image, mask.visible, random), random);
        const loss = reconstructionLoss(output, image, hiddenWeights(mask, layout), "mse");
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
