/** Contrastive MAE: MAE on two overlapping crops, and crops of one image told apart from those of others. */
import { consistency } from "./consistency.ts";

/** Loss weights 5 and 0.1; no alignment. */
export const contrastiveMae = consistency({
  name: "contrastive-mae",
  citation:
    "Consistent View Alignment, winner of the SSL3D 2025 challenge (LatentCampus), row MAE+contrastive",
  summary: "MAE on two overlapping crops, contrastive between images",
}, { align: { default: "none" } });
