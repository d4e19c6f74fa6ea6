/** Fine-tunes a pretrained network, or a new one, on labelled data: run folder + labelled data -> model folder. */
import { join } from "@std/path";
import { architectures } from "../lib/arch/registry.ts";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { chooseDevice, device, deviceFlags } from "../lib/device.ts";
import { RECIPES } from "../lib/data/volume.ts";
import { UsageError } from "../lib/errors.ts";
import { gib, makeRoom } from "../lib/gpu/room.ts";
import { inits, type Task, tasks } from "../lib/eval/model.ts";
import { memory } from "../lib/tensor.ts";
import { writeWhole } from "../lib/files.ts";
import { finetune, Finetuning, standOf } from "../lib/train/finetune.ts";
import { planFinetuning } from "../lib/train/finetune_plan.ts";
import { schedules } from "../lib/train/phases.ts";
import { lockFolder } from "../lib/train/run_folder.ts";
import { stopCode } from "../lib/train/stop.ts";
import { summary } from "../lib/train/validation.ts";

export const command: Command = {
  name: "finetune",
  summary:
    "Trains a model for a task on an nnU-Net raw dataset, from the encoder of a pretraining run or from scratch.",
  positionals: [{
    name: "DATA",
    help: "dataset.json, imagesTr, and labelsTr; for classification and regression labels.csv (case,label)",
    access: "read",
  }],
  flags: {
    out: { type: "string", short: "o", access: "write", help: "model folder" },
    from: {
      type: "string",
      access: "read",
      help: "run folder whose encoder to start from; without: from scratch",
    },
    task: {
      type: "string",
      default: "segmentation",
      choices: tasks,
      help: "a label per voxel, a class or a number per image",
    },
    schedule: { type: "string", choices: schedules, help: "default: warmup with --from, else scratch" },
    fold: {
      type: "string",
      default: "0",
      choices: ["0", "1", "2", "3", "4", "all"],
      help: "fold left out for validation",
    },
    labels: { type: "integer", min: 1, help: "train on N cases drawn from the fold's training set" },
    draw: { type: "integer", min: 0, help: "which draw of --labels (default 0)" },
    arch: {
      type: "string",
      help: `${architectures.map((a) => a.name).join(", ")} (default: the run's, else resenc-s)`,
    },
    patch: {
      type: "string",
      help: "sides of a crop, N or ZxYxX (default: fitted to the data, at most the run's)",
    },
    init: {
      type: "string",
      choices: inits,
      help:
        "initial values of what is not pretrained in a resenc-*: nnU-Net's (default; image tasks: torch) or PyTorch's",
    },
    recipe: {
      type: "string",
      choices: RECIPES,
      help: "how images are prepared (default: as the run's volumes were, else onemmiso)",
    },
    batch: { type: "integer", min: 1, help: "crops per step (default 2; image tasks 4)" },
    steps: { type: "integer", min: 1, default: 1000, help: "optimizer steps" },
    lr: {
      type: "number",
      min: 0,
      help:
        "peak learning rate (default 0.01, on primus 0.0003; with --from and 25,000 steps or more 0.001, 0.0001; " +
        "image tasks 0.0001)",
    },
    seed: { type: "integer", min: 0, default: 0, help: "of new weights and crops" },
    resume: { type: "boolean", help: "go on from the checkpoint that an interrupted fine-tuning left" },
    ...deviceFlags,
  },
};

async function main({ positionals: [data], flags }: Arguments): Promise<number> {
  const begin = performance.now();
  if (!flags.out) throw new UsageError("finetune: -o is missing; name the model folder to write");
  const task: Task = flags.task;
  const { dataset, info, from, splits, validation } = await planFinetuning(data, task, flags);
  chooseDevice(flags.device, flags.kernels);
  await Deno.mkdir(flags.out, { recursive: true });
  using _lock = await lockFolder(flags.out, "metrics.jsonl");
  const stand = await standOf(flags.out, info, flags.resume ?? false, validation);
  if (stand === "finished") {
    log(`${flags.out} is finished: ${flags.steps} steps`);
    writeLine({ model: flags.out, steps: flags.steps });
    return 0;
  }
  const tuning = new Finetuning(dataset, info, stand ? undefined : from);
  log(
    `${info.arch}, ${tuning.model.parameters.count()} parameters, ${info.schedule}${
      from ? ` from ${from.file}` : ""
    }: ${info.train.length} cases, patch ${info.patch.join("x")}, batch ${info.batch}${
      stand ? `, from step ${stand}` : ""
    }`,
  );
  await writeWhole(join(flags.out, "splits_final.json"), JSON.stringify(splits, null, 2) + "\n");
  const { bytes: planned_memory_bytes, fixed } = await tuning.plan();
  makeRoom({ bytes: planned_memory_bytes, fixed, batch: info.batch, least: 1 }, "lower --patch or --batch");
  const result = await finetune(tuning, flags.out, validation, stand);
  const parameters = tuning.model.parameters.count();
  tuning[Symbol.dispose]();
  if (result.interrupted) {
    log(
      `stopped after step ${result.steps} of ${flags.steps}; ${flags.out} holds its weights, go on with --resume`,
    );
  }
  const { tensors, peakBytes } = memory();
  log(`memory: ${gib(peakBytes)} at the peak of the run`);
  writeLine({
    model: flags.out,
    steps: result.steps,
    parameters,
    loss: result.loss,
    ...summary(result.rows, info),
    validation_cases: result.rows.length ? validation.length : 0,
    training_cases: info.train.length,
    ...(result.interrupted && { interrupted: result.interrupted }),
    seconds: Number(((performance.now() - begin) / 1000).toFixed(2)),
    planned_memory_bytes,
    peak_memory_bytes: peakBytes,
    live_tensors: tensors,
    device: device(),
  });
  return stopCode(result.interrupted);
}

if (import.meta.main) await run(command, main);
