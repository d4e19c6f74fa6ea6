/**
 * C-CVA: the overlap is aligned by InfoNCE, position by position: every other position and image is a negative
 * (`--option contrastive=0`: without the term between images).
 */
import { consistency } from "./consistency.ts";

/** Loss weights 5, 0.2, 0.1; 7^3 positions, 5^3 on token networks. */
export const cCva = consistency({
  name: "c-cva",
  citation: "Consistent View Alignment, winner of the SSL3D 2025 challenge (LatentCampus), rows MAE+C-CVA",
  summary: "as cva, with InfoNCE over the positions of the overlap",
}, { align: { default: "infonce" }, alignment: { default: 0.2 }, aligned: { token: "5" } });
