/** The run folder: run.json, metrics.jsonl, TensorBoard events, checkpoint/. One process at a time holds it. */
import { join } from "@std/path";
import { UserError } from "../errors.ts";
import { exists, readLine, writeWhole } from "../files.ts";
import type { Compat } from "../methods/compat.ts";
import type { OptionValue } from "../methods/options.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Precision } from "../nn/precision.ts";
import type { Tensor } from "../tensor.ts";
import { checkSame, findCheckpoint, loadCheckpoint, readRunFile, saveCheckpoint } from "./checkpoint.ts";
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
  /** How the volumes were prepared; absent where the store does not say. */
  recipe?: string;
  /** Seed of the pairs that were given, where it is not that of the run. */
  pairs?: number;
  /** SHA-256 of the volumes in use. */
  data: string;
}

/** One line of metrics.jsonl: step from 1, seconds of that step alone, and one number per named term. */
export type Metric = { step: number; loss: number; seconds: number; lr: number } & Record<string, number>;

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
      if (await exists(join(path, "model.json"))) {
        throw new UserError(`${path} holds a model of finetune (model.json); choose another -o`);
      }
      const before = await exists(file)
        ? (await readRunFile(file))?.config as RunConfig | undefined
        : undefined;
      const found = await findCheckpoint(path);
      if (found !== undefined && !resume) {
        throw new UserError(
          `${path} holds a ${before?.method ?? "pretraining"} run already; ${
            before ? "continue it with --resume or " : ""
          }choose another -o`,
        );
      }
      if (found !== undefined && !before) {
        throw new UserError(
          `${file}: this file, which says what checkpoint/ beside it is of, is missing; restore it or choose another -o`,
        );
      }
      if (resume && before) {
        // The checkpoint holds what came of the start weights: they need not be named again.
        if (found !== undefined && config.from === undefined) config = { ...config, from: before.from };
        checkSame(file, { ...before }, { ...config }, {
          compat: [],
          precision: "f32",
          recompute: false,
          recipe: config.recipe,
        });
      }
      const step = found ?? 0;
      await writeWhole(file, JSON.stringify({ config, deno: Deno.version.deno, format: 1 }, null, 2) + "\n");
      const metricsFile = join(path, "metrics.jsonl");
      const lines = step && await exists(metricsFile)
        ? (await Deno.readTextFile(metricsFile)).split("\n")
        : [];
      const metrics = lines.slice(0, step).filter(Boolean).map((line, i) =>
        readLine<Metric>(metricsFile, line, i)
      );
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

  /** Writes the checkpoint of `step`. */
  async save(step: number, parameters: Parameters, state: Map<string, Tensor>): Promise<void> {
    await saveCheckpoint(this.path, this.config, "run.json", step, parameters, state);
  }

  /** Loads the checkpoint into parameters and state. */
  async load(parameters: Parameters, state: Map<string, Tensor>): Promise<void> {
    await loadCheckpoint(this.path, parameters, state);
  }

  close(): void {
    this.log.close();
    this.events.close();
    this.lock.close();
  }
}
