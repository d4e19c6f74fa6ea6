/** What a fine-tuning will be: data, split, network, patch and rates from a command line. */
import { join } from "@std/path";
import { architecture } from "../arch/registry.ts";
import type { Arguments } from "../config.ts";
import { type Dataset, filesOf, gridOf, openDataset } from "../data/cases.ts";
import { readPatch } from "../data/views.ts";
import type { Recipe } from "../data/volume.ts";
import { UsageError } from "../errors.ts";
import type { ModelInfo, Task } from "../eval/model.ts";
import { type Architecture, checkPatch } from "../nn/network.ts";
import type { Side } from "../tensor.ts";
import { finetuningPreset } from "./finetune.ts";
import { Cases } from "./labelled.ts";
import type { Schedule } from "./phases.ts";
import { draw, foldsOf, type Split, splitOf } from "./splits.ts";
import { type Pretrained, readRun } from "./transfer.ts";

/** Everything that `finetune` needs; `validation` are the cases that it scores at the end. */
export interface FinetunePlan {
  dataset: Dataset;
  info: ModelInfo;
  from?: Pretrained;
  splits: Split[];
  validation: string[];
}

/** Reads what the flags of `finetune` name. @throws UserError, UsageError naming the flag or the file */
export async function planFinetuning(
  data: string,
  task: Task,
  flags: Arguments["flags"],
): Promise<FinetunePlan> {
  const schedule: Schedule = flags.schedule ?? (flags.from ? "warmup" : "scratch");
  if (schedule === "scratch" ? flags.from : !flags.from) {
    throw new UsageError(
      `--schedule ${schedule} ${flags.from ? "takes no" : "needs"} --from; give ${
        flags.from
          ? "full, warmup, sawtooth or frozen"
          : "the run folder to start from, or --schedule scratch"
      }`,
    );
  }
  if (flags.draw !== undefined && flags.labels === undefined) {
    throw new UsageError("--draw says which draw of --labels; give --labels N with it, or leave it out");
  }
  const dataset = openDataset(data, task);
  const from = flags.from ? await readRun(flags.from) : undefined;
  const arch = architecture(flags.arch ?? from?.arch ?? "resenc-s");
  if (flags.init !== undefined && !arch.inits) {
    throw new UsageError(
      `--init: ${arch.name} has the initial values of its paper alone; leave the flag out`,
    );
  }
  const splits = await foldsOf(data, dataset.cases, flags.fold);
  const split = splitOf(flags.fold, splits, dataset.cases, join(data, "splits_final.json"));
  const train = flags.labels === undefined ? split.train : draw(split.train, flags.labels, flags.draw ?? 0);
  const recipe: Recipe = flags.recipe ?? from?.recipe ?? "onemmiso";
  const patch = flags.patch ? readPatch(flags.patch) : await defaultPatch(dataset, arch, recipe, from?.patch);
  checkPatch(arch, patch);
  const preset = finetuningPreset(task, arch);
  const info: ModelInfo = {
    task,
    method: from ? from.method ?? "imported" : "scratch",
    arch: arch.name,
    patch,
    recipe,
    spacing: [1, 1, 1],
    channels: dataset.channels,
    labels: dataset.labels,
    labelNames: dataset.labelNames,
    ...(task === "regression" ? { target: standardise(dataset, train) } : {}),
    // Classifiers and regressions of others are built with PyTorch's defaults; segmentation is measured against nnU-Net.
    ...(arch.inits ? { init: flags.init ?? (task === "segmentation" ? "nnunet" : "torch") } : {}),
    dataset: dataset.name,
    fold: flags.fold === "all" ? "all" : Number(flags.fold),
    seed: flags.seed,
    schedule,
    steps: 0,
    of: flags.steps,
    batch: flags.batch ?? (task === "segmentation" ? 2 : 4),
    // The published rate after pretraining is a tenth, for schedules of 25,000 steps and more: short ones never arrive.
    lr: flags.lr ?? (from && flags.steps >= 25_000 ? preset.tuning : preset.lr),
    train,
    ...(flags.labels === undefined ? {} : { draw: flags.draw ?? 0 }),
    ...(flags.from ? { from: flags.from } : {}),
  };
  await new Cases(dataset, recipe).check([...train, ...split.val]);
  return { dataset, info, from, splits, validation: split.val };
}

/** Mean and standard deviation of the targets of the training cases; 1 instead of a deviation of 0. */
export function standardise(dataset: Dataset, train: string[]): { mean: number; sd: number } {
  const values = train.map((id) => dataset.targets!.get(id)!);
  const mean = values.reduce((a, b) => a + b) / values.length;
  return { mean, sd: Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length) || 1 };
}

/**
 * The median shape of at most 50 cases as the network sees them, rounded to what the network takes, and no larger than `limit`: the patch of pretraining, or
 * 64 voxels, which two cores train.
 */
export async function defaultPatch(
  dataset: Dataset,
  arch: Architecture,
  recipe: Recipe,
  limit: Side = [64, 64, 64],
): Promise<[number, number, number]> {
  const shapes: Side[] = [];
  const every = Math.ceil(dataset.cases.length / 50);
  for (const id of dataset.cases.filter((_, i) => i % every === 0)) {
    shapes.push(await gridOf(filesOf(dataset, id).images, recipe));
  }
  const { stride } = arch;
  const side = (axis: 0 | 1 | 2) => {
    const sorted = shapes.map((shape) => shape[axis]).sort((a, b) => a - b);
    const fitted = Math.round(sorted[sorted.length >> 1] / stride) * stride;
    return Math.max(2 * stride, Math.min(fitted, Math.floor(limit[axis] / stride) * stride));
  };
  return [side(0), side(1), side(2)];
}
