/**
 * The recipe of Consistent View Alignment: MAE with a Huber loss first, then CVA from its weights with a fresh voxel head,
 * projector and predictor. One command for the two of docs/methods.md, with the same bits.
 */
import { cva } from "./cva.ts";
import { mae } from "./mae.ts";
import type { Method } from "./method.ts";

/** Stage 1 takes 1000 epochs, stage 2 250 (LatentCampus; 150 of Primus). */
export const twoStage: Method = {
  ...cva,
  name: "two-stage",
  citation:
    "Consistent View Alignment, winner of the SSL3D 2025 challenge (LatentCampus), the two-stage recipe",
  summary: "mae with a Huber loss, then cva from its weights",
  options: {
    ...cva.options,
    "stage-1": {
      default: 4,
      token: 6.67,
      min: 0,
      help: "steps of stage 1 for each step of stage 2 (--steps)",
    },
  },
  first: { method: mae, options: { loss: "huber" } },
};
