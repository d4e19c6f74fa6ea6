/** A trained segmentation model: its folder, and the way from a case to labels. */
import { join } from "@std/path";
import { architecture } from "../arch/registry.ts";
import { Tape } from "../autograd.ts";
import { type Case, toFile } from "../data/cases.ts";
import { decode } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import type { Network } from "../nn/network.ts";
import { Parameters } from "../nn/parameters.ts";
import { cancellable, Grid, scope, type Side, Tensor, wait } from "../tensor.ts";
import { slidingWindow } from "./sliding_window.ts";

/** model.json: everything that prediction needs beside the weights, and where the model comes from. */
export interface ModelInfo {
  task: "segmentation";
  method: string;
  arch: string;
  patch: [number, number, number];
  /** mm of a voxel of the network's grid. */
  spacing: [number, number, number];
  channels: string[];
  /** Label values, background first: class k is written as `labels[k]`. */
  labels: number[];
  labelNames: string[];
  dataset: string;
  fold: number | "all";
  seed: number;
  schedule: string;
  /** Steps done, and asked for. */
  steps: number;
  of: number;
  batch: number;
  lr: number;
  /** Cases trained on; `draw` when they were drawn from the fold. */
  train: string[];
  draw?: number;
  from?: string;
}

/** A network with its parameters. Free it with `using`. */
export class Segmenter implements Disposable {
  readonly parameters: Parameters;
  readonly network: Network;

  constructor(readonly info: ModelInfo) {
    this.parameters = new Parameters(info.seed);
    this.network = architecture(info.arch).build(this.parameters, info.channels.length, info.labels.length, {
      patch: info.patch,
    });
  }

  /** Reads the folder that `finetune` wrote. @throws UserError naming the file that is missing or wrong */
  static async open(folder: string): Promise<Segmenter> {
    const about = join(folder, "model.json");
    const file = join(folder, "weights.safetensors");
    let info: ModelInfo;
    try {
      info = JSON.parse(await Deno.readTextFile(about));
    } catch (error) {
      if (error instanceof SyntaxError) throw new UserError(`${about}: it is not JSON (${error.message})`);
      if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory)) throw error;
      throw new UserError(
        `${about}: there is no such file; give the model folder that deno task finetune wrote`,
      );
    }
    const lists = [info.patch, info.channels, info.labels];
    if (info.task !== "segmentation" || lists.some((list) => !Array.isArray(list))) {
      throw new UserError(
        `${about}: task, patch, channels or labels are missing; it is no segmentation model`,
      );
    }
    const model = new Segmenter(info);
    const loaded = model.parameters.load(decode(await Deno.readFile(file), file).tensors, file);
    const names = [...model.parameters.tensors.keys()];
    if (loaded.length < names.length) {
      const missing = names.find((name) => !loaded.includes(name));
      throw new UserError(`${file}: ${missing} is missing, which ${info.arch} needs; train the model again`);
    }
    return model;
  }

  /** Logits `[z][y][x][class]` of one window `[z][y][x][channel]` of `patch`; undefined when cancelled. */
  async #forward(window: Float32Array, patch: Side): Promise<Float32Array | undefined> {
    return await scope(async () => {
      const y = cancellable(() =>
        Tape.none(() => {
          const x = Tensor.from(window, this.info.channels.length, { grid: Grid.dense(1), side: patch });
          return this.network.decode(this.network.encode(x));
        })
      );
      return await wait() ? y.read() : undefined;
    });
  }

  /** Logits `[z][y][x][class]` of a case on the grid of its file; undefined when `cancel` came in between. */
  async logits(of: Case, mirror: boolean): Promise<Float32Array | undefined> {
    const { patch, channels, labels } = this.info;
    const forward = (window: Float32Array) => this.#forward(window, patch);
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
