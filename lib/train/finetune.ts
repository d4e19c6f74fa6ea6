/** Fine-tuning on labelled crops, then the scores of the fold's validation cases. */
import { join } from "@std/path";
import { architecture } from "../arch/registry.ts";
import { Tape } from "../autograd.ts";
import { Ahead } from "../data/ahead.ts";
import type { Dataset } from "../data/cases.ts";
import { UserError } from "../errors.ts";
import { exists, readJson, readLine, writeWhole } from "../files.ts";
import type { ImageModel } from "../eval/image_model.ts";
import { buildModel, type ModelInfo } from "../eval/model.ts";
import type { Segmenter } from "../eval/segmenter.ts";
import type { Architecture } from "../nn/network.ts";
import type { Optimizer } from "../ops/optimizer.ts";
import {
  cancel,
  cancellable,
  Grid,
  type Layout,
  memory,
  planning,
  scope,
  Tensor,
  volume,
  wait,
} from "../tensor.ts";
import {
  checkSame,
  findCheckpoint,
  loadCheckpoint,
  loadWeights,
  saveCheckpoint,
  saveWeights,
} from "./checkpoint.ts";
import { Cases } from "./labelled.ts";
import type { Crops, Truth } from "./patches.ts";
import { type Phase, phaseAt, type Schedule } from "./phases.ts";
import { type Preset, presets } from "./presets.ts";
import { Progress } from "./progress.ts";
import { Stop, type StopSignal } from "./stop.ts";
import { type Pretrained, transferEncoder } from "./transfer.ts";
import { type ScoreRow, validate } from "./validation.ts";

const SAVE_EVERY_MS = 300_000;
const WEIGHTS = "weights.safetensors";

/** How a task trains a network: image tasks by a preset of their own. */
export function finetuningPreset(task: ModelInfo["task"], arch: Architecture): Preset {
  return presets[task === "segmentation" ? arch.preset ?? "cnn" : "image"];
}

/** Network, optimizer and schedule of one fine-tuning. */
export class Finetuning implements Disposable {
  readonly model: Segmenter | ImageModel;
  readonly cases: Cases;
  readonly #encoder: Set<string>;
  readonly #preset: Preset;
  #optimizer?: Optimizer;
  #stage = -1;

  constructor(readonly dataset: Dataset, readonly info: ModelInfo, from?: Pretrained) {
    this.model = buildModel(info, true);
    this.cases = new Cases(dataset, info.recipe);
    const arch = architecture(info.arch);
    this.#preset = finetuningPreset(info.task, arch);
    const names = [...this.model.parameters.tensors.keys()];
    this.#encoder = new Set(names.filter((name) => arch.encoderPrefixes.some((p) => name.startsWith(p))));
    if (from) transferEncoder(this.model.parameters, from, arch, info.patch);
  }

  /** The crops of a step (from 0): a function of (seed, step). */
  crops(step: number): Promise<Crops> {
    return this.cases.crops(this.info, step);
  }

  #phaseAt(step: number): Phase {
    const { schedule, of, lr } = this.info;
    return phaseAt(schedule as Schedule, step, of, lr, this.#preset.decay);
  }

  #optimizerOf({ trainable }: Phase): Optimizer {
    const wanted = [...this.model.parameters.tensors].filter(([name]) =>
      trainable === "all" || !this.#encoder.has(name)
    );
    return this.#preset.optimizer(new Map(wanted));
  }

  /** What step `step` does; its optimizer is ready, a new one where a stage begins. */
  #phase(step: number): Phase & { optimizer: Optimizer } {
    const phase = this.#phaseAt(step);
    if (phase.stage !== this.#stage) {
      this.#optimizer?.[Symbol.dispose]();
      this.#optimizer = this.#optimizerOf(phase);
      this.#stage = phase.stage;
    }
    return { ...phase, optimizer: this.#optimizer! };
  }

  #gradients(
    images: (layout: Layout) => Tensor,
    truth: Truth,
    { parameters }: Optimizer,
  ): { loss: Tensor; gradients: Map<Tensor, Tensor> } {
    const { batch, patch: side } = this.info;
    const { tape, result: loss } = Tape.record(
      parameters.values(),
      () => this.model.loss(images({ grid: Grid.dense(batch), side }), truth),
    );
    return { loss, gradients: tape.backward(loss, []) };
  }

  /**
   * Bytes at the peak of a step of the last stage, which trains the most, or of a window of the validation where that needs
   * more, found as in `Trainer.plan`; `fixed`: of them parameters and state. For before the first step.
   */
  async plan(): Promise<{ bytes: number; fixed: number }> {
    const { batch, channels, labels, patch, of } = this.info;
    const voxels = volume(patch);
    const images = (layout: Layout) => Tensor.full(0, batch * voxels, channels.length, layout);
    const blank: Truth = {
      labels: new Uint8Array(batch * voxels),
      targets: new Float32Array(batch).fill(labels[0] ?? 0),
    };
    await wait();
    planning(true);
    try {
      using optimizer = this.#optimizerOf(this.#phaseAt(of - 1));
      const fixed = memory().bytes;
      await scope(() => void this.#gradients(images, blank, optimizer));
      await scope(() => void this.model.output(new Float32Array(voxels * channels.length)));
      return { bytes: memory().peakBytes, fixed };
    } finally {
      planning(false);
    }
  }

  /**
   * One step (from 0). Undefined when it was cancelled, and then nothing has changed.
   * @param ahead as of `Trainer.step`
   */
  async step(step: number, crops: Crops, ahead?: () => void): Promise<Metric | undefined> {
    const begin = performance.now();
    const { optimizer, lr } = this.#phase(step);
    return await scope(async () => {
      const images = (layout: Layout) => crops.views.tensor(layout);
      const { loss, gradients } = cancellable(() => this.#gradients(images, crops, optimizer));
      const norm = optimizer.step(gradients, lr, this.#preset.clip);
      ahead?.();
      if (!await wait()) return undefined;
      const seconds = Number(((performance.now() - begin) / 1000).toFixed(4));
      const metric = { step: step + 1, loss: loss.read()[0], seconds, lr, gradient_norm: norm.read()[0] };
      const odd = (["loss", "gradient_norm"] as const).find((name) => !Number.isFinite(metric[name]));
      if (odd) {
        const what = odd.replace("_", " ");
        throw new UserError(
          `the ${what} is not finite at step ${step + 1}; lower --lr (it is ${this.info.lr})`,
        );
      }
      return metric;
    });
  }

  /** Saves, and writes checkpoint/ of a folder: what `resume` needs after `steps` steps. */
  async checkpoint(folder: string, steps: number): Promise<void> {
    await this.save(folder, steps);
    const state = this.#optimizer?.state() ?? new Map();
    await saveCheckpoint(folder, this.info, "model.json", steps, this.model.parameters, state);
  }

  /** Goes on from checkpoint/ of a folder, written after `steps` steps; after the last, its weights are all it takes. */
  async resume(folder: string, steps: number): Promise<void> {
    if (steps === this.info.of) return loadWeights(join(folder, WEIGHTS), this.model.parameters);
    const state = steps ? this.#phase(steps - 1).optimizer.state() : new Map();
    await loadCheckpoint(folder, this.model.parameters, state);
  }

  /** Writes weights and model.json, each whole. */
  async save(folder: string, steps: number): Promise<void> {
    saveWeights(join(folder, WEIGHTS), this.model.parameters, this.info, "model.json");
    await writeWhole(join(folder, "model.json"), JSON.stringify({ ...this.info, steps }, null, 2) + "\n");
  }

  [Symbol.dispose](): void {
    this.#optimizer?.[Symbol.dispose]();
    this.model[Symbol.dispose]();
  }
}

/** One line of metrics.jsonl. */
export interface Metric {
  step: number;
  loss: number;
  seconds: number;
  lr: number;
  gradient_norm: number;
}

/** What came of it. */
export interface Result {
  steps: number;
  /** Mean of the last 50 losses. */
  loss: number | null;
  /** The signal that ended it early. */
  interrupted?: StopSignal;
  rows: ScoreRow[];
}

/**
 * Where a model folder stands: the steps of its checkpoint or, before the validation, of its model; 0 without; `finished`.
 * @param validation the cases that it is to score
 * @throws UserError for one that holds anything without `resume`, or with it for one of another configuration
 */
export async function standOf(
  folder: string,
  info: ModelInfo,
  resume: boolean,
  validation: string[],
): Promise<number | "finished"> {
  if (await exists(join(folder, "run.json"))) {
    throw new UserError(`${folder} holds a pretraining run (run.json); choose another -o`);
  }
  const found = await findCheckpoint(folder);
  const file = join(folder, "model.json");
  const before = await exists(file) ? await readJson(file) : undefined;
  if (!resume && (before || found !== undefined)) {
    throw new UserError(
      `${folder} holds a fine-tuning already${
        before ? ` (${before.task}, ${before.arch}, ${found ?? before.steps} of ${before.of} steps)` : ""
      }; continue it with --resume or choose another -o`,
    );
  }
  if (!before) {
    if (found === undefined) return 0;
    throw new UserError(
      `${file}: this file, which says what checkpoint/ beside it is of, is missing; restore it or choose another -o`,
    );
  }
  checkSame(file, before, { ...info, steps: before.steps });
  if (found !== undefined || before.steps < info.of) return found ?? 0;
  const validated = !validation.length || await exists(join(folder, "validation.jsonl"));
  return validated ? "finished" : info.of;
}

/**
 * Trains, saves, validates; writes metrics.jsonl, weights.safetensors, model.json and validation.jsonl into `folder`.
 * SIGTERM and SIGINT end it with the weights of the last whole step, and checkpoint/ to go on from.
 * @param begin steps that checkpoint/ of the folder has
 */
export async function finetune(
  tuning: Finetuning,
  folder: string,
  validation: string[],
  begin = 0,
): Promise<Result> {
  const { of } = tuning.info;
  using stop = new Stop();
  const file = join(folder, "metrics.jsonl");
  const before = begin ? (await Deno.readTextFile(file)).split("\n").slice(0, begin) : [];
  const losses = before.map((line, i) => readLine<Metric>(file, line, i).loss);
  const metrics = await Deno.open(file, { create: true, write: true });
  const encoder = new TextEncoder();
  const note = (line: string) => metrics.writeSync(encoder.encode(line + "\n"));
  await metrics.truncate(encoder.encode(before.map((line) => line + "\n").join("")).length);
  await metrics.seek(0, Deno.SeekMode.End);
  await Deno.remove(join(folder, "validation.jsonl")).catch(() => {/* there was none */});
  const crops = new Ahead((step) => tuning.crops(step), begin, of);
  let rows: ScoreRow[] | undefined;
  try {
    if (begin) await tuning.resume(folder, begin);
    const progress = new Progress(of);
    let savedAt = performance.now();
    for (let step = begin; step < of && !stop.signal; step++) {
      const taken = await crops.next().catch(async (error) => {
        // Bad data costs no step that is done.
        if (losses.length > begin) await tuning.checkpoint(folder, losses.length);
        throw error;
      });
      const metric = await tuning.step(step, taken, () => crops.send());
      if (!metric) break;
      losses.push(metric.loss);
      note(JSON.stringify(metric));
      progress.show(metric, memory().peakBytes);
      if (performance.now() - savedAt > SAVE_EVERY_MS) {
        await tuning.checkpoint(folder, losses.length);
        savedAt = performance.now();
      }
    }
    if (!stop.signal) {
      await tuning.save(folder, losses.length);
      rows = await validate(tuning.model, tuning.cases, validation).catch((error) => {
        const sentence = error instanceof UserError ? error.message : undefined;
        throw sentence
          ? new UserError(`${sentence}; the model is trained, --resume goes on to score it`)
          : error;
      });
    }
    if (rows) {
      const lines = rows.map((row) => JSON.stringify(row) + "\n").join("");
      if (lines) await writeWhole(join(folder, "validation.jsonl"), lines);
      await Deno.remove(join(folder, "checkpoint"), { recursive: true }).catch(() => {/* there was none */});
    } else {
      cancel(false);
      await wait();
      await tuning.checkpoint(folder, losses.length);
    }
  } finally {
    await crops.close();
    metrics.close();
  }
  const last = losses.slice(-50);
  const loss = last.length ? last.reduce((a, b) => a + b) / last.length : null;
  return { steps: losses.length, loss, interrupted: rows ? undefined : stop.signal, rows: rows ?? [] };
}
