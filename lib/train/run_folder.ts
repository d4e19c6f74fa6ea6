/**
 * The run folder: run.json, metrics.jsonl, TensorBoard events, checkpoint/. One process at a time holds it. A
 * checkpoint is written beside the old one and renamed, so that a kill at any moment leaves a whole one.
 */
import { join } from "@std/path";
import { decode, writeFile } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import type { Compat } from "../methods/compat.ts";
import type { OptionValue } from "../methods/options.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Precision } from "../nn/precision.ts";
import type { Tensor } from "../tensor.ts";
import { EventWriter } from "./events.ts";

/** What makes a run: the same config, data and seed give the same bits. */
export interface RunConfig {
  method: string;
  arch: string;
  patch: [number, number, number];
  batch: number;
  steps: number;
  seed: number;
  lr: number;
  /** Storage of activations and their gradients; absent: f32. */
  precision?: Precision;
  /** Blocks are computed again in the backward pass instead of kept. */
  recompute?: boolean;
  options: Record<string, OptionValue>;
  /** Switches of --compat. */
  compat?: Compat[];
  /** SHA-256 of the weights that it started from. */
  from?: string;
  /** SHA-256 of the volumes in use. */
  data: string;
}

/** One line of metrics.jsonl: step from 1, seconds of that step alone, and one number per named term. */
export type Metric = { step: number; loss: number; seconds: number; lr: number } & Record<string, number>;

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The object in a file of the run folder. @throws UserError for a damaged file */
// deno-lint-ignore no-explicit-any
async function readJson(path: string): Promise<Record<string, any>> {
  const text = await Deno.readTextFile(path);
  try {
    return JSON.parse(text);
  } catch {
    throw new UserError(`${path}: this is no whole JSON file; restore it or choose another -o`);
  }
}

/** Writes a file under `<path>.partial`, then renames it. */
export async function writeWhole(path: string, bytes: Uint8Array | string): Promise<void> {
  const partial = `${path}.partial`;
  try {
    if (typeof bytes === "string") await Deno.writeTextFile(partial, bytes);
    else await Deno.writeFile(partial, bytes);
    await Deno.rename(partial, path);
  } catch (error) {
    await Deno.remove(partial).catch(() => {});
    throw error;
  }
}

/** Takes a folder by its file `name` until that is closed. @throws UserError when another process has it */
export async function lockFolder(path: string, name = ".lock"): Promise<Deno.FsFile> {
  const lock = await Deno.open(join(path, name), { create: true, write: true });
  if (await lock.tryLock(true)) return lock;
  lock.close();
  throw new UserError(`another run writes to ${path}; wait for it to end or choose another -o`);
}

/** A run folder held by this process. */
export class RunFolder {
  private constructor(
    readonly path: string,
    readonly config: RunConfig,
    /** Last step whose checkpoint exists; 0 for a new run. */
    readonly step: number,
    readonly metrics: Metric[],
    private readonly lock: Deno.FsFile,
    private readonly log: Deno.FsFile,
    private readonly events: EventWriter,
  ) {}

  /** Takes the folder for a new run, or for the rest of an old one with `resume`. */
  static async open(path: string, config: RunConfig, resume: boolean): Promise<RunFolder> {
    await Deno.mkdir(path, { recursive: true }).catch((error) => {
      if (error instanceof Deno.errors.NotCapable) throw error;
      throw new UserError(`${path}: this folder cannot be made (${error.message}); choose another -o`);
    });
    const lock = await lockFolder(path);
    try {
      const file = join(path, "run.json");
      const checkpoint = join(path, "checkpoint");
      if (!await exists(checkpoint) && await exists(`${checkpoint}.old`)) {
        await Deno.rename(`${checkpoint}.old`, checkpoint);
      }
      for (const rest of [`${checkpoint}.old`, `${checkpoint}.partial`]) {
        if (await exists(rest)) await Deno.remove(rest, { recursive: true });
      }
      let step = 0;
      if (await exists(file)) {
        const before = (await readJson(file)).config as RunConfig;
        const started = await exists(checkpoint);
        if (started && !resume) {
          throw new UserError(
            `${path} holds a ${before.method} run already; continue it with --resume or choose another -o`,
          );
        }
        if (started) {
          for (const key of Object.keys(config) as (keyof RunConfig)[]) {
            const there = before[key] ??
              ({ compat: [], precision: "f32", recompute: false } as Record<string, unknown>)[key];
            if (JSON.stringify(there) === JSON.stringify(config[key])) continue;
            throw new UserError(
              `${file}: ${key} is ${JSON.stringify(there)} there and ${JSON.stringify(config[key])} here; ` +
                `resume with the same configuration or choose another -o`,
            );
          }
          step = (await readJson(join(checkpoint, "state.json"))).step;
        }
      }
      await writeWhole(file, JSON.stringify({ config, deno: Deno.version.deno, format: 1 }, null, 2) + "\n");
      const metricsFile = join(path, "metrics.jsonl");
      const lines = step && await exists(metricsFile)
        ? (await Deno.readTextFile(metricsFile)).split("\n")
        : [];
      const metrics = lines.slice(0, step).filter(Boolean).map((line) => JSON.parse(line) as Metric);
      await writeWhole(metricsFile, metrics.map((m) => JSON.stringify(m) + "\n").join(""));
      const log = await Deno.open(metricsFile, { append: true });
      for await (const { name } of Deno.readDir(path)) {
        if (!step && name.startsWith("events.out.tfevents.")) await Deno.remove(join(path, name));
      }
      const events = step ? await EventWriter.reopen(path, step) : await EventWriter.create(path);
      return new RunFolder(path, config, step, metrics, lock, log, events);
    } catch (error) {
      lock.close();
      throw error;
    }
  }

  /** Appends one step to metrics.jsonl and the event file. */
  note(metric: Metric): void {
    this.metrics.push(metric);
    this.log.writeSync(new TextEncoder().encode(JSON.stringify(metric) + "\n"));
    const { step, ...values } = metric;
    this.events.write(step, values);
  }

  /** Writes checkpoint/{weights,optimizer}.safetensors and state.json as one. */
  async save(step: number, parameters: Parameters, state: Map<string, Tensor>): Promise<void> {
    const partial = join(this.path, "checkpoint.partial");
    const target = join(this.path, "checkpoint");
    await Deno.mkdir(partial, { recursive: true });
    try {
      const meta = {
        config: JSON.stringify(this.config),
        licence: "as the training data allow",
        citation: "see run.json",
      };
      const source = (shape: number[], t: Tensor) => ({ shape, read: (into: Float32Array) => t.read(into) });
      const weights = [...parameters.tensors].map(([name, t]) =>
        [name, source(parameters.shapes.get(name)!, t)] as const
      );
      writeFile(join(partial, "weights.safetensors"), new Map(weights), meta);
      const rest = [...state].map(([name, t]) => [name, source([t.length], t)] as const);
      writeFile(join(partial, "optimizer.safetensors"), new Map(rest));
      await Deno.writeTextFile(join(partial, "state.json"), JSON.stringify({ step }) + "\n");
    } catch (error) {
      await Deno.remove(partial, { recursive: true });
      throw error;
    }
    const old = await exists(target);
    if (old) await Deno.rename(target, `${target}.old`);
    await Deno.rename(partial, target);
    if (old) await Deno.remove(`${target}.old`, { recursive: true });
  }

  /** Loads the checkpoint of `step` into parameters and state. */
  async load(parameters: Parameters, state: Map<string, Tensor>): Promise<void> {
    const weights = join(this.path, "checkpoint", "weights.safetensors");
    const optimizer = join(this.path, "checkpoint", "optimizer.safetensors");
    const loaded = parameters.load(decode(await Deno.readFile(weights), weights).tensors, weights);
    const rest = decode(await Deno.readFile(optimizer), optimizer).tensors;
    for (const [name, tensor] of state) {
      const found = rest.get(name);
      if (!found || found.data.length !== tensor.length) {
        throw new UserError(`${optimizer}: ${name} is missing; the checkpoint is damaged`);
      }
      tensor.write(found.data);
    }
    if (loaded.length !== parameters.tensors.size) {
      throw new UserError(
        `${weights}: ${parameters.tensors.size - loaded.length} tensors of this network are missing`,
      );
    }
  }

  close(): void {
    this.log.close();
    this.events.close();
    this.lock.close();
  }
}
