/** Gram: student and teacher agree on which channels are active together over the overlap. */
import { consistency } from "./consistency.ts";

/** Loss weights 5, 2, 0.1. */
export const gram = consistency({
  name: "gram",
  citation:
    "Consistent View Alignment, winner of the SSL3D 2025 challenge (LatentCampus), GramAligned trainers",
  summary: "as cva, with Gram matrices of the features of the overlap",
}, { align: { default: "gram" }, alignment: { default: 2 } });
