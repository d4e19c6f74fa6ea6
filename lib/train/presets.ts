/** Optimizer presets of the papers: what trains which kind of network. */
import { AdamW, type Optimizer, Sgd } from "../ops/optimizer.ts";
import type { Tensor } from "../tensor.ts";

/** Names of the presets. */
export type PresetName = "cnn" | "vit" | "amaes" | "image";

/** How a kind of network is pretrained. Weight decay reaches every parameter. */
export interface Preset {
  /** Peak learning rate, and that of some networks where it is another. */
  lr: number;
  lrs?: Readonly<Record<string, number>>;
  /** Peak learning rate of fine-tuning from a pretrained encoder. */
  tuning: number;
  /** Largest global L2 norm of the gradients. */
  clip: number;
  /** Share of the run in which the learning rate rises to its peak. */
  warmup: number;
  /** What follows: the power 0.9 of what is left, once per epoch, or half a cosine, at every step. */
  decay: "poly" | "cosine";
  optimizer(parameters: Map<string, Tensor>): Optimizer;
}

export const presets: Record<PresetName, Preset> = {
  /** SGD, Nesterov momentum 0.99, weight decay 3e-5; poly. */
  cnn: { lr: 1e-2, tuning: 1e-3, clip: 12, warmup: 0, decay: "poly", optimizer: (p) => new Sgd(p) },
  /** AdamW, weight decay 5e-2, betas 0.9 and 0.98; warm-up over 50 of 1000 epochs, then poly. */
  vit: { lr: 3e-4, tuning: 1e-4, clip: 1, warmup: 0.05, decay: "poly", optimizer: (p) => new AdamW(p) },
  /** AdamW with amsgrad, weight decay 3e-5, no clipping; warm-up over 5 of 100 epochs, then a cosine (AMAES). */
  amaes: {
    lr: 1e-4,
    lrs: { "mednext-m": 5e-4 },
    tuning: 1e-4,
    clip: Infinity,
    warmup: 0.05,
    decay: "cosine",
    optimizer: (p) => new AdamW(p, { betas: [0.9, 0.999], weightDecay: 3e-5, amsgrad: true }),
  },
  /** Fine-tuning for image tasks: AdamW, weight decay 1e-2, no clipping; rise over a tenth, then a cosine (SSL3D). */
  image: {
    lr: 1e-4,
    tuning: 1e-4,
    clip: Infinity,
    warmup: 0.1,
    decay: "cosine",
    optimizer: (p) => new AdamW(p, { betas: [0.9, 0.999], weightDecay: 1e-2 }),
  },
};

/** How `method` trains `arch`: its own preset, or that of the network. */
export function presetOf(method: { preset?: PresetName }, arch: { preset?: PresetName }): Preset {
  return presets[method.preset ?? arch.preset ?? "cnn"];
}
