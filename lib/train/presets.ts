/** Optimizer presets of the papers (methods.md section 0): what trains which kind of network. */
import { AdamW, type Optimizer, Sgd } from "../ops/optimizer.ts";
import type { Tensor } from "../tensor.ts";

/** Names of the presets. */
export type PresetName = "cnn" | "vit";

/** How a kind of network is pretrained. Weight decay reaches every parameter. */
export interface Preset {
  /** Peak learning rate. */
  lr: number;
  /** Largest global L2 norm of the gradients. */
  clip: number;
  /** Share of the run in which the learning rate rises to its peak. */
  warmup: number;
  optimizer(parameters: Map<string, Tensor>): Optimizer;
}

export const presets: Record<PresetName, Preset> = {
  /** SGD, Nesterov momentum 0.99, weight decay 3e-5; poly. */
  cnn: { lr: 1e-2, clip: 12, warmup: 0, optimizer: (p) => new Sgd(p) },
  /** AdamW, weight decay 5e-2, betas 0.9 and 0.98; warm-up over 50 of 1000 epochs, then poly. */
  vit: { lr: 3e-4, clip: 1, warmup: 0.05, optimizer: (p) => new AdamW(p) },
};
