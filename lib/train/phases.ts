/** The schedules of fine-tuning: which parameters train at a step, and at what rate (S3D section 3.3). */
import { cosine, poly } from "./schedule.ts";

export const schedules = ["full", "warmup", "sawtooth", "frozen", "scratch"] as const;
export type Schedule = typeof schedules[number];

/** What one step does. A new `stage` starts with a new optimizer. */
export interface Phase {
  stage: number;
  trainable: "all" | "decoder";
  lr: number;
}

/**
 * full, scratch: a fall over everything. warmup: a linear rise over a tenth of the steps, then the fall. frozen: the same,
 * on the decoder. sawtooth: rise and fall on the decoder (2.5 % each), then rise (5 %) and fall on everything.
 * @param step from 0
 * @param peak learning rate
 * @param decay the fall: poly (nnU-Net), or half a cosine (image tasks)
 */
export function phaseAt(
  schedule: Schedule,
  step: number,
  total: number,
  peak: number,
  decay: "poly" | "cosine" = "poly",
): Phase {
  const rate = (at: number, total: number, warmup = 0) =>
    (decay === "poly" ? poly : cosine)(peak, at, total, warmup);
  const part = (share: number) => Math.max(1, Math.round(share * total));
  switch (schedule) {
    case "full":
    case "scratch":
      return { stage: 0, trainable: "all", lr: rate(step, total) };
    case "warmup":
    case "frozen": {
      const lr = rate(step, total, total > 1 ? part(0.1) : 0);
      return { stage: 0, trainable: schedule === "frozen" ? "decoder" : "all", lr };
    }
    case "sawtooth": {
      const [rise, decoder] = [part(0.025), part(0.05)];
      if (step < decoder) return { stage: 0, trainable: "decoder", lr: rate(step, decoder, rise) };
      return { stage: 1, trainable: "all", lr: rate(step - decoder, total - decoder, part(0.05)) };
    }
  }
}
