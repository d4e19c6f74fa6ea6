/**
 * Consistent View Alignment: MAE on two overlapping crops, whose features of the overlap are aligned by their cosine,
 * plus a contrastive term between images (`--option contrastive=0`: without it).
 */
import { consistency } from "./consistency.ts";

/** Loss weights 5, 1, 0.1; teacher momentum 0.995; 75 % hidden. */
export const cva = consistency({
  name: "cva",
  citation: "Consistent View Alignment, winner of the SSL3D 2025 challenge (LatentCampus), rows MAE+CVA",
  summary: "MAE on two overlapping crops, features of the overlap aligned, contrastive between images",
});
