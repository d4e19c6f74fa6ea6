/** A segmentation model: its loss, and the way from a case to labels. */
import { architecture } from "../arch/registry.ts";
import { Tape } from "../autograd.ts";
import { type Case, toFile } from "../data/cases.ts";
import type { BuildOptions, Network } from "../nn/network.ts";
import { Parameters } from "../nn/parameters.ts";
import { diceCrossEntropy } from "../ops/segmentation.ts";
import { cancellable, Grid, scope, Tensor, wait } from "../tensor.ts";
import type { Truth } from "../train/patches.ts";
import type { Model, ModelInfo } from "./model.ts";
import { slidingWindow } from "./sliding_window.ts";

/** A network with its parameters. Free it with `using`. */
export class Segmenter implements Model {
  readonly parameters: Parameters;
  readonly network: Network;

  /** @param init of values that no file will overwrite; absent: what is fastest */
  constructor(readonly info: ModelInfo, init?: BuildOptions["init"]) {
    this.parameters = new Parameters(info.seed);
    this.network = architecture(info.arch).build(this.parameters, info.channels.length, info.labels.length, {
      patch: info.patch,
      init,
    });
  }

  /** Soft Dice and cross entropy, of the nnU-Net. */
  loss(x: Tensor, { labels }: Truth): Tensor {
    return diceCrossEntropy(this.network.decode(this.network.encode(x)), labels);
  }

  /** Logits of one window `[z][y][x][channel]` of the patch, with nothing recorded. */
  output(window: Float32Array): Tensor {
    const { channels, patch: side } = this.info;
    return Tape.none(() => {
      const x = Tensor.from(window, channels.length, { grid: Grid.dense(1), side });
      return this.network.decode(this.network.encode(x));
    });
  }

  /** The values of `output`; undefined when cancelled. */
  async #forward(window: Float32Array): Promise<Float32Array | undefined> {
    return await scope(async () => {
      const y = cancellable(() => this.output(window));
      return await wait() ? y.read() : undefined;
    });
  }

  /** Logits `[z][y][x][class]` of a case on the grid of its file; undefined when `cancel` came in between. */
  async logits(of: Case, mirror: boolean): Promise<Float32Array | undefined> {
    const { patch, channels, labels } = this.info;
    const forward = (window: Float32Array) => this.#forward(window);
    const inner = await slidingWindow(of.image, of.shape, channels.length, patch, labels.length, forward, {
      mirror,
    });
    return inner && toFile(inner, of, labels.length);
  }

  [Symbol.dispose](): void {
    this.parameters[Symbol.dispose]();
  }
}

/** The class with the largest logit in each voxel; the first of equals. */
export function argmax(logits: Float32Array, classes: number): Uint8Array {
  const out = new Uint8Array(logits.length / classes);
  for (let i = 0; i < out.length; i++) {
    for (let k = 1; k < classes; k++) if (logits[i * classes + k] > logits[i * classes + out[i]]) out[i] = k;
  }
  return out;
}

/** Softmax over the classes, as `[class][z][y][x]`. */
export function probabilities(logits: Float32Array, classes: number): Float32Array {
  const n = logits.length / classes;
  const out = new Float32Array(logits.length);
  for (let i = 0; i < n; i++) {
    const row = logits.subarray(i * classes, (i + 1) * classes);
    const top = Math.max(...row);
    let sum = 0;
    for (let k = 0; k < classes; k++) sum += Math.exp(row[k] - top);
    for (let k = 0; k < classes; k++) out[k * n + i] = Math.exp(row[k] - top) / sum;
  }
  return out;
}
