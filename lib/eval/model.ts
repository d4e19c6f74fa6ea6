/** The folder of a fine-tuned model: model.json and weights.safetensors, for any task. */
import { join } from "@std/path";
import { architectures } from "../arch/registry.ts";
import { decode } from "../data/safetensors.ts";
import { type Recipe, RECIPES } from "../data/volume.ts";
import { UserError } from "../errors.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Tensor } from "../tensor.ts";
import type { Truth } from "../train/patches.ts";
import { ImageModel } from "./image_model.ts";
import { Segmenter } from "./segmenter.ts";

export const tasks = ["segmentation", "classification", "regression"] as const;
export type Task = typeof tasks[number];

/** Initial values of new networks: nnU-Net's (`BuildOptions.init`), or PyTorch's defaults. */
export const inits = ["nnunet", "torch"] as const;

/** model.json: everything that prediction needs beside the weights, and where the model comes from. */
export interface ModelInfo {
  task: Task;
  method: string;
  arch: string;
  patch: [number, number, number];
  /** How images are prepared: as in the pretraining. */
  recipe: Recipe;
  /** mm of a voxel of the network's grid. */
  spacing: [number, number, number];
  channels: string[];
  /** Label values, in a segmentation background first: class k is written as `labels[k]`. Empty in a regression. */
  labels: number[];
  labelNames: string[];
  /** Regression: mean and standard deviation of the training cases' targets; the network learns (target - mean) / sd. */
  target?: { mean: number; sd: number };
  /** Initial values of what was not pretrained, on a network that has both. */
  init?: typeof inits[number];
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

/** A network for a task with its parameters. Free it with `using`. */
export interface Model extends Disposable {
  readonly info: ModelInfo;
  readonly parameters: Parameters;
  /** Loss of a batch of crops, a scalar. */
  loss(x: Tensor, truth: Truth): Tensor;
  /** What it makes of one window of the patch, with nothing recorded. */
  output(window: Float32Array): Tensor;
}

/** A network for what `info` says; `fresh`: with the initial values that it names, for training. */
export function buildModel(info: ModelInfo, fresh = false): Segmenter | ImageModel {
  const init = fresh && info.init === "nnunet" ? info.init : undefined;
  return info.task === "segmentation" ? new Segmenter(info, init) : new ImageModel(info, init);
}

/** Reads the folder that `finetune` wrote. @throws UserError naming the file that is missing or wrong */
export async function openModel(folder: string): Promise<Segmenter | ImageModel> {
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
  if (!tasks.includes(info.task) || lists.some((list) => !Array.isArray(list))) {
    throw new UserError(`${about}: task, patch, channels or labels are missing; it is no model of finetune`);
  }
  if (!RECIPES.includes(info.recipe)) {
    throw new UserError(
      `${about}: recipe is ${JSON.stringify(info.recipe)}; it must be ${
        RECIPES.join(" or ")
      }, how its training images were prepared; models of before need another deno task finetune`,
    );
  }
  if (!architectures.some(({ name }) => name === info.arch)) {
    const names = architectures.map(({ name }) => name).join(", ");
    throw new UserError(`${about}: arch is ${JSON.stringify(info.arch)}; it must be one of ${names}`);
  }
  const model = buildModel(info);
  const loaded = model.parameters.load(decode(await Deno.readFile(file), file).tensors, file);
  const names = [...model.parameters.tensors.keys()];
  if (loaded.length < names.length) {
    const missing = names.find((name) => !loaded.includes(name));
    throw new UserError(`${file}: ${missing} is missing, which ${info.arch} needs; train the model again`);
  }
  return model;
}
