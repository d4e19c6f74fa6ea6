/** Autoencoding: reconstruct the whole crop, nothing hidden; the lowest row of the ladder. */
import { imagesOf } from "../data/images.ts";
import { scale } from "../ops/elementwise.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { Grid } from "../tensor.ts";
import { defineMethod } from "./method.ts";

/** The aligned-AE settings of LatentCampus without their alignment term: Huber over all voxels, weight 5, lr 5e-3. */
export const ae = defineMethod({
  name: "ae",
  citation: "Consistent View Alignment, winner of the SSL3D 2025 challenge (LatentCampus), row AE",
  summary: "reconstruct the whole crop, nothing hidden",
  views: 1,
  lr: 0.005,
  options: {
    loss: { default: "huber", choices: ["huber", "mse", "l1"], help: "loss per voxel" },
    reconstruction: { default: 5, min: 0, help: "weight of the loss" },
  },
  bind({ network, patch, options }) {
    return {
      loss({ batch, random }) {
        const image = imagesOf(batch, { grid: Grid.dense(batch.ids.length), side: patch });
        const output = network.decode(network.encode(image, undefined, random), random);
        const reconstruction = reconstructionLoss(output, image, null, options.loss);
        return {
          loss: scale(reconstruction, options.reconstruction),
          terms: { reconstruction },
          output,
          hidden: new Float32Array(image.length),
          whole: true,
        };
      },
    };
  },
});
