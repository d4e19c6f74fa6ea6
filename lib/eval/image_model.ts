/**
 * A model of one answer per image, a class or a number: the encoder, the mean of its deepest features over the voxels, a
 * linear layer (the heads of FOMO 2025 and SSL3D).
 */
import { architecture } from "../arch/registry.ts";
import { Tape } from "../autograd.ts";
import type { Case } from "../data/cases.ts";
import type { BuildOptions, Network } from "../nn/network.ts";
import { Parameters } from "../nn/parameters.ts";
import { linear } from "../ops/linear.ts";
import { globalAverage } from "../ops/pool.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { crossEntropy } from "../ops/segmentation.ts";
import { cancellable, Grid, scope, Tensor, wait } from "../tensor.ts";
import type { Truth } from "../train/patches.ts";
import type { Model, ModelInfo } from "./model.ts";
import { probabilities } from "./segmenter.ts";
import { windows } from "./sliding_window.ts";

/** A network with its parameters, the decoder left out. Free it with `using`. */
export class ImageModel implements Model {
  readonly parameters: Parameters;
  readonly #network: Network;
  readonly #head: { weight: Tensor; bias: Tensor | null };

  /** @param init as of `Segmenter` */
  constructor(readonly info: ModelInfo, init?: BuildOptions["init"]) {
    const arch = architecture(info.arch);
    this.parameters = new Parameters(info.seed);
    this.#network = arch.build(this.parameters, info.channels.length, 1, { patch: info.patch, init });
    this.parameters.keep((name) => arch.encoderPrefixes.some((prefix) => name.startsWith(prefix)));
    const width = this.#network.features.at(-1)!;
    const outputs = Math.max(1, info.labels.length);
    this.#head = this.parameters.affine("head", [outputs, width], width, outputs);
  }

  #forward(x: Tensor): Tensor {
    const deepest = this.#network.encode(x).at(-1)!;
    return linear(globalAverage(deepest), this.#head.weight, this.#head.bias);
  }

  /** Cross entropy, or mean squared error of the standardised target. */
  loss(x: Tensor, { targets }: Truth): Tensor {
    const { labels, target } = this.info;
    const y = this.#forward(x);
    if (!target) return crossEntropy(y, targets.map((value) => labels.indexOf(value)));
    const wanted = targets.map((value) => (value - target.mean) / target.sd);
    return reconstructionLoss(y, Tensor.from(wanted, 1), null, "mse");
  }

  /** Logits or the value of one window `[z][y][x][channel]` of the patch, with nothing recorded. */
  output(window: Float32Array): Tensor {
    const { channels, patch: side } = this.info;
    return Tape.none(() =>
      this.#forward(Tensor.from(window, channels.length, { grid: Grid.dense(1), side }))
    );
  }

  /**
   * Probabilities in the order of `labels`, or the value: the mean over windows of the patch, half a patch apart, of
   * logits or values. Undefined when cancelled.
   */
  async predict(of: Case): Promise<number[] | undefined> {
    const { patch, channels, labels, target } = this.info;
    const sum = new Float32Array(Math.max(1, labels.length));
    let count = 0;
    for (const window of windows(of.image, of.shape, channels.length, patch)) {
      const y = await scope(async () => {
        const y = cancellable(() => this.output(window));
        return await wait() ? y.read() : undefined;
      });
      if (!y) return undefined;
      y.forEach((value, k) => sum[k] += value);
      count++;
    }
    const means = sum.map((value) => value / count);
    return target ? [means[0] * target.sd + target.mean] : [...probabilities(means, labels.length)];
  }

  [Symbol.dispose](): void {
    this.parameters[Symbol.dispose]();
  }
}
