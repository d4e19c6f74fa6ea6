/** Fine-tuning for segmentation: Dice and cross-entropy on labelled crops, then the fold's validation cases. */
import { join } from "@std/path";
import { architecture } from "../arch/registry.ts";
import { Tape } from "../autograd.ts";
import { type Case, type Dataset, filesOf, gridOf, readCase } from "../data/cases.ts";
import { writeFile } from "../data/safetensors.ts";
import { UsageError, UserError } from "../errors.ts";
import { dice, overlaps } from "../eval/dice.ts";
import { argmax, type ModelInfo, Segmenter } from "../eval/segmenter.ts";
import { type Architecture, checkPatch } from "../nn/network.ts";
import type { Optimizer } from "../ops/optimizer.ts";
import { diceCrossEntropy } from "../ops/segmentation.ts";
import { Rng } from "../rng.ts";
import { cancel, cancellable, Grid, memory, scope, type Side, Tensor, volume, wait } from "../tensor.ts";
import { crop, type Crops, sites, type Source } from "./patches.ts";
import { phaseAt, type Schedule } from "./phases.ts";
import { type Preset, presets } from "./presets.ts";
import { Progress } from "./progress.ts";
import { writeWhole } from "./run_folder.ts";
import { type Pretrained, transferEncoder } from "./transfer.ts";

/** Prepared cases stay in memory up to this. */
const CACHE_BYTES = 2 ** 31;
const SAVE_EVERY_MS = 300_000;

/** One row of the validation, in the form that `rank` reads. `value` is null when the label is in neither map. */
export interface ScoreRow {
  method: string;
  arch: string;
  task: string;
  dataset: string;
  fold: number | "all";
  seed: number;
  case: string;
  metric: "DSC";
  label: number;
  value: number | null;
}

/** Cases prepared for training, least recently used first. */
export class Cases {
  #kept = new Map<string, { source: Promise<Source>; bytes: number }>();
  #bytes = 0;

  constructor(readonly dataset: Dataset) {}

  /** A labelled case on the network's grid. @throws UserError naming its file */
  read(id: string): Promise<Case> {
    const { images, label } = filesOf(this.dataset, id);
    return readCase(id, images, { file: label, labels: this.dataset.labels });
  }

  /** A case and its sites, from memory where it is there. */
  source(id: string): Promise<Source> {
    const found = this.#kept.get(id);
    if (found) {
      this.#kept.delete(id);
      this.#kept.set(id, found);
      return found.source;
    }
    const entry = { bytes: 0, source: this.#load(id) };
    this.#kept.set(id, entry);
    return entry.source.then((source) => {
      entry.bytes = source.case.image.byteLength + 2 * source.case.target!.byteLength;
      this.#bytes += entry.bytes;
      for (const [old, { bytes }] of this.#kept) {
        if (this.#bytes <= CACHE_BYTES || old === id) break;
        this.#kept.delete(old);
        this.#bytes -= bytes;
      }
      return source;
    });
  }

  async #load(id: string): Promise<Source> {
    const of = await this.read(id);
    return { case: of, sites: sites(of.target!, this.dataset.labels.length) };
  }
}

/** Network, optimizer and schedule of one fine-tuning. */
export class Finetuning implements Disposable {
  readonly model: Segmenter;
  readonly cases: Cases;
  readonly #encoder: Set<string>;
  readonly #preset: Preset;
  #optimizer?: Optimizer;
  #stage = -1;

  constructor(readonly dataset: Dataset, readonly info: ModelInfo, from?: Pretrained) {
    this.model = new Segmenter(info);
    this.cases = new Cases(dataset);
    const arch = architecture(info.arch);
    this.#preset = presets[arch.preset ?? "cnn"];
    const names = [...this.model.parameters.tensors.keys()];
    this.#encoder = new Set(names.filter((name) => arch.encoderPrefixes.some((p) => name.startsWith(p))));
    if (from) transferEncoder(this.model.parameters, from, arch, info.patch);
  }

  /** The crops of a step (from 0): a function of (seed, step). */
  async crops(step: number): Promise<Crops> {
    const { patch, batch, channels, train, seed } = this.info;
    const voxels = batch * volume(patch);
    const out = { image: new Float32Array(voxels * channels.length), labels: new Uint8Array(voxels) };
    for (let i = 0; i < batch; i++) {
      const rng = new Rng(seed, "crop", step, i);
      const source = await this.cases.source(train[rng.integer(train.length)]);
      crop(source, patch, i, batch, out, rng);
    }
    return out;
  }

  /** One step (from 0). Undefined when it was cancelled, and then nothing has changed. */
  async step(step: number, { image, labels }: Crops): Promise<Metric | undefined> {
    const begin = performance.now();
    const { batch, channels, of, lr: peak } = this.info;
    const { stage, trainable, lr } = phaseAt(this.info.schedule as Schedule, step, of, peak);
    if (stage !== this.#stage) {
      this.#free();
      const wanted = [...this.model.parameters.tensors].filter(([n]) =>
        trainable === "all" || !this.#encoder.has(n)
      );
      this.#optimizer = this.#preset.optimizer(new Map(wanted));
      this.#stage = stage;
    }
    const optimizer = this.#optimizer!;
    const { network } = this.model;
    const side: Side = this.info.patch;
    return await scope(async () => {
      const { loss, gradients } = cancellable(() => {
        const { tape, result: loss } = Tape.record(optimizer.parameters.values(), () => {
          const x = Tensor.from(image, channels.length, { grid: Grid.dense(batch), side });
          return diceCrossEntropy(network.decode(network.encode(x)), labels, { batchDice: false });
        });
        return { loss, gradients: tape.backward(loss, []) };
      });
      const norm = optimizer.step(gradients, lr, this.#preset.clip);
      if (!await wait()) return undefined;
      const seconds = Number(((performance.now() - begin) / 1000).toFixed(4));
      const metric = { step: step + 1, loss: loss.read()[0], seconds, lr, gradient_norm: norm.read()[0] };
      if (!Number.isFinite(metric.loss)) {
        throw new UserError(`the loss is not finite at step ${step + 1}; lower --lr (it is ${peak})`);
      }
      return metric;
    });
  }

  /** Writes weights and model.json, each whole. */
  async save(folder: string, steps: number): Promise<void> {
    const metadata = {
      config: JSON.stringify(this.info),
      licence: "as the training data allow",
      citation: "see model.json",
    };
    const { tensors, shapes } = this.model.parameters;
    const sources = [...tensors].map(([name, t]) =>
      [name, { shape: shapes.get(name)!, read: (into: Float32Array) => t.read(into) }] as const
    );
    writeFile(join(folder, "weights.safetensors"), new Map(sources), metadata);
    await writeWhole(join(folder, "model.json"), JSON.stringify({ ...this.info, steps }, null, 2) + "\n");
  }

  /** DSC of a case per label, on the grid of its file. Undefined when cancelled. */
  async score(id: string): Promise<ScoreRow[] | undefined> {
    const { method, arch, dataset, fold, seed, labels } = this.info;
    const of = await this.cases.read(id);
    const logits = await this.model.logits(of, false);
    if (!logits) return undefined;
    const predicted = Uint16Array.from(argmax(logits, labels.length));
    const classes = labels.slice(1).map((_, k) => k + 1);
    return overlaps(Uint16Array.from(of.truth!), predicted, [...of.file.shape], classes).map((
      overlap,
      i,
    ) => ({
      method,
      arch,
      task: "segmentation",
      dataset,
      fold,
      seed,
      case: id,
      metric: "DSC",
      label: labels[i + 1],
      value: dice(overlap),
    }));
  }

  #free(): void {
    this.#optimizer?.[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#free();
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
  interrupted: boolean;
  rows: ScoreRow[];
}

/**
 * Trains, saves, validates; writes metrics.jsonl, weights.safetensors, model.json and validation.jsonl into `folder`.
 * SIGTERM and SIGINT end it with the weights of the last whole step.
 */
export async function finetune(tuning: Finetuning, folder: string, validation: string[]): Promise<Result> {
  const { of } = tuning.info;
  let stop = false;
  const onSignal = () => {
    stop = true;
    cancel();
  };
  const signals = ["SIGTERM", "SIGINT"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
  const metrics = await Deno.open(join(folder, "metrics.jsonl"), {
    create: true,
    write: true,
    truncate: true,
  });
  await Deno.remove(join(folder, "validation.jsonl")).catch(() => {/* there was none */});
  const losses: number[] = [];
  const rows: ScoreRow[] = [];
  try {
    const progress = new Progress(of, 0);
    let savedAt = performance.now();
    let next = tuning.crops(0);
    for (let step = 0; step < of && !stop; step++) {
      const work = tuning.step(step, await next);
      if (step + 1 < of) {
        next = tuning.crops(step + 1);
        next.catch(() => {/* thrown where it is awaited */});
      }
      const metric = await work;
      if (!metric) break;
      losses.push(metric.loss);
      metrics.writeSync(new TextEncoder().encode(JSON.stringify(metric) + "\n"));
      progress.show(metric, memory().peakBytes);
      if (performance.now() - savedAt > SAVE_EVERY_MS) {
        await tuning.save(folder, losses.length);
        savedAt = performance.now();
      }
    }
    if (stop) cancel(false);
    await wait();
    await tuning.save(folder, losses.length);
    for (const id of validation) {
      const scored = stop ? undefined : await tuning.score(id);
      if (!scored) break;
      rows.push(...scored);
    }
    if (!stop && rows.length) {
      await writeWhole(
        join(folder, "validation.jsonl"),
        rows.map((row) => JSON.stringify(row) + "\n").join(""),
      );
    }
  } finally {
    cancel(false);
    metrics.close();
    for (const signal of signals) Deno.removeSignalListener(signal, onSignal);
  }
  const last = losses.slice(-50);
  const loss = last.length ? last.reduce((a, b) => a + b) / last.length : null;
  return { steps: losses.length, loss, interrupted: stop, rows: stop ? [] : rows };
}

/** Mean DSC per label over the cases that have one, and their mean; null without any. */
export function means(
  rows: ScoreRow[],
  labels: number[],
): { dsc: number | null; perLabel: (number | null)[] } {
  const mean = (values: number[]) => values.length ? values.reduce((a, b) => a + b) / values.length : null;
  const perLabel = labels.slice(1).map((label) =>
    mean(rows.flatMap((row) => row.label === label && row.value !== null ? [row.value] : []))
  );
  return { dsc: mean(perLabel.filter((v) => v !== null)), perLabel };
}

/** `48` or `32x48x32` (z, y, x). @throws UsageError unless it is one or three sides that the network takes */
export function parsePatch(text: string, arch: Architecture): [number, number, number] {
  const sides = text.split(/[x,]/).map(Number);
  const [z, y = z, x = y] = sides;
  const patch: [number, number, number] = [z, y, x];
  if (![1, 3].includes(sides.length) || !patch.every((p) => Number.isInteger(p) && p > 0)) {
    throw new UsageError(`--patch is "${text}"; it must be a side like 64 or three like 32x48x32 (z, y, x)`);
  }
  checkPatch(arch, patch);
  return patch;
}

/**
 * The median shape at 1 mm, rounded to what the network takes, and no larger than `limit`: the patch of pretraining, or
 * 64 voxels, which two cores train.
 */
export async function defaultPatch(
  dataset: Dataset,
  arch: Architecture,
  limit: Side = [64, 64, 64],
): Promise<[number, number, number]> {
  const shapes: Side[] = [];
  for (const id of dataset.cases) shapes.push(await gridOf(filesOf(dataset, id).images[0]));
  const { stride } = arch;
  const side = (axis: 0 | 1 | 2) => {
    const sorted = shapes.map((shape) => shape[axis]).sort((a, b) => a - b);
    const fitted = Math.round(sorted[sorted.length >> 1] / stride) * stride;
    return Math.max(2 * stride, Math.min(fitted, Math.floor(limit[axis] / stride) * stride));
  };
  return [side(0), side(1), side(2)];
}
