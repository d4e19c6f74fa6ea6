/** Fine-tuning with no data: what tests of its memory need. */
import type { Dataset } from "../../lib/data/cases.ts";
import type { ModelInfo } from "../../lib/eval/model.ts";
import { Views } from "../../lib/data/images.ts";
import { Rng } from "../../lib/rng.ts";
import { volume } from "../../lib/tensor.ts";
import { Finetuning } from "../../lib/train/finetune.ts";
import { crop, type Crops } from "../../lib/train/patches.ts";

/** A fine-tuning of resenc-s on crops of 32^3, with no data. */
export function tuningOf(changes: Partial<ModelInfo>): Finetuning {
  return new Finetuning({} as Dataset, {
    ...{ task: "segmentation", method: "scratch", arch: "resenc-s", patch: [32, 32, 32], spacing: [1, 1, 1] },
    ...{ recipe: "onemmiso" },
    ...{
      channels: ["T1"],
      labels: [0, 1, 2],
      labelNames: ["background", "a", "b"],
      dataset: "none",
      fold: 0,
    },
    ...{ seed: 1, schedule: "scratch", steps: 0, of: 4, batch: 2, lr: 0.01, train: [] },
    ...changes,
  });
}

/** Crops of noise for one step of `info`. */
export async function crops({ batch, channels, patch, labels }: ModelInfo): Promise<Crops> {
  const n = volume(patch);
  const image = Float32Array.from({ length: n * channels.length }, (_, i) => Math.sin(i * i));
  const source = { case: { image, shape: patch }, sites: [] };
  const out = {
    views: new Views([...patch], { channels: channels.length }),
    labels: Uint8Array.from({ length: batch * n }, (_, i) => i * 7 % 5 % Math.max(1, labels.length)),
    targets: Float32Array.from({ length: batch }, (_, i) => labels[i % labels.length] ?? i / 2),
  };
  for (let i = 0; i < batch; i++) await crop(source, i, batch, out, new Rng(i));
  return out;
}
