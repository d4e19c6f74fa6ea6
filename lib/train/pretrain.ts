/** The pretraining loop: one step is load, forward, backward, update, one wait. */
import { Tape } from "../autograd.ts";
import type { Batch } from "../data/loader.ts";
import { log } from "../config.ts";
import { UserError } from "../errors.ts";
import type { Learner, Method } from "../methods/method.ts";
import { checkPair } from "../methods/registry.ts";
import type { Architecture, Network } from "../nn/network.ts";
import { checkPatch } from "../nn/network.ts";
import { exactly, inPrecision } from "../nn/precision.ts";
import { Parameters } from "../nn/parameters.ts";
import type { Optimizer } from "../ops/optimizer.ts";
import { Rng } from "../rng.ts";
import { cancel, cancellable, fetch, memory, planning, scope, type Tensor, wait } from "../tensor.ts";
import { type Preset, presetOf } from "./presets.ts";
import { Progress } from "./progress.ts";
import type { Metric, RunConfig, RunFolder } from "./run_folder.ts";
import { cosine, poly } from "./schedule.ts";
import { Stop, type StopSignal } from "./stop.ts";

/** The work of a step failed: the machine or the GPU is at fault, not the configuration. */
class StepFailure extends UserError {}

/** A model with its method and optimizer, ready to train. */
export class Trainer implements Disposable {
  readonly arch: Architecture;
  readonly parameters: Parameters;
  readonly network: Network;
  readonly learner: Learner;
  readonly encoderParameters: number;
  readonly networkParameters: number;
  readonly #preset: Preset;
  readonly #optimizer: Optimizer;

  constructor(given: Architecture, readonly method: Method, readonly config: RunConfig) {
    const { patch } = config;
    const arch = this.arch = inPrecision(given, config.precision ?? "f32");
    checkPair(method, arch);
    checkPatch(arch, patch);
    this.parameters = new Parameters(config.seed);
    const wanted = { patch, hidden: "drop", light: method.light, ...method.build?.(config.options) } as const;
    const network = this.network = arch.build(this.parameters, 1, 1, wanted);
    this.networkParameters = this.parameters.count();
    this.encoderParameters = arch.encoderPrefixes.reduce((n, prefix) => n + this.parameters.count(prefix), 0);
    try {
      this.learner = method.bind({
        arch,
        network,
        parameters: this.parameters,
        patch,
        batch: config.batch,
        options: config.options,
        compat: new Set(config.compat),
      });
    } catch (error) {
      this.parameters[Symbol.dispose]();
      throw error;
    }
    this.#preset = presetOf(method, arch);
    this.#optimizer = this.#preset.optimizer(this.parameters.tensors);
    if (config.precision === "bf16-exact") exactly(true);
    this.learner.start?.();
  }

  /** Everything beside the weights that a resumed run needs: optimizer state and the teacher (defect D13). */
  state(): Map<string, Tensor> {
    const state = new Map(this.#optimizer.state());
    for (const [name, tensor] of this.learner.state ?? []) state.set(`teacher.${name}`, tensor);
    return state;
  }

  /**
   * Learning rate at `step` (from 0), after the preset's warm-up: a cosine per step, or poly over epochs of 250 steps, or
   * of 1 % of a run shorter than 25,000.
   */
  rate(step: number): number {
    const { warmup, decay } = this.#preset;
    const { lr, steps } = this.config;
    if (decay === "cosine") return cosine(lr, step, steps, Math.round(warmup * steps));
    const epoch = Math.min(250, Math.max(1, Math.round(steps / 100)));
    const epochs = Math.ceil(steps / epoch);
    return poly(lr, Math.floor(step / epoch), epochs, Math.round(warmup * epochs));
  }

  /**
   * Bytes at the peak of a step, found by going through one without computing: tensors are counted, not made. The working
   * memory of single operations comes on top.
   * @param recompute as of --recompute
   */
  async plan(recompute = this.config.recompute): Promise<number> {
    const { patch, batch, seed } = this.config;
    const count = batch * this.method.views;
    const images = new Float32Array(count * patch[0] * patch[1] * patch[2]);
    const whole = Array.from({ length: count }, () => [0, 0, 0, 1, 1, 1]).flat();
    const blank: Batch = {
      images,
      inputs: this.method.reversal ? images : undefined,
      overlap: Float32Array.from(this.method.views === 2 ? whole : []),
      ids: new Array(count).fill(""),
    };
    await wait();
    planning(true);
    try {
      await scope(() => {
        const random = new Rng(seed, "mask", 0);
        const { tape, result } = Tape.record(
          this.parameters.tensors.values(),
          () => this.learner.loss({ batch: blank, random }),
          recompute,
        );
        tape.backward(result.loss, Object.values(result.terms));
      });
      return memory().peakBytes;
    } finally {
      planning(false);
    }
  }

  /**
   * One training step (from 0). Undefined when it was cancelled, and then nothing has changed.
   * @param ahead called when all work of the step is enqueued, before it is waited for
   */
  async step(step: number, batch: Batch, ahead?: () => void): Promise<Metric | undefined> {
    const begin = performance.now();
    const random = new Rng(this.config.seed, "mask", step);
    return await scope(async () => {
      const lr = this.rate(step);
      const { loss, terms, gradients } = cancellable(() => {
        const { tape, result } = Tape.record(
          this.parameters.tensors.values(),
          () => this.learner.loss({ batch, random }),
          this.config.recompute,
        );
        const { loss, terms } = result;
        return { loss, terms, gradients: tape.backward(loss, Object.values(terms)) };
      });
      const norm = this.#optimizer.step(gradients, lr, this.#preset.clip, this.learner.teachers);
      ahead?.();
      fetch([loss, norm, ...Object.values(terms)]);
      const whole = await wait().catch((error) => {
        throw error instanceof UserError ? new StepFailure(`step ${step + 1}: ${error.message}`) : error;
      });
      if (!whole) return undefined;
      const value = (t: Tensor) => t.read()[0];
      const metric: Metric = {
        step: step + 1,
        loss: value(loss),
        seconds: 0,
        lr,
        gradient_norm: value(norm),
      };
      for (const [name, term] of Object.entries(terms)) metric[name] = value(term);
      metric.seconds = Number(((performance.now() - begin) / 1000).toFixed(4));
      // The optimizer changes nothing by a gradient that is not finite: steps after it would learn nothing either.
      const odd = ["loss", "gradient_norm"].find((name) => !Number.isFinite(metric[name]));
      if (odd) {
        throw new UserError(
          `the ${odd.replace("_", " ")} is not finite at step ${
            step + 1
          }: --lr ${this.config.lr} is too high, start again with a lower one`,
        );
      }
      return metric;
    });
  }

  [Symbol.dispose](): void {
    if (this.config.precision === "bf16-exact") exactly(false);
    for (const tensor of this.state().values()) tensor[Symbol.dispose]();
    this.parameters[Symbol.dispose]();
  }
}

/** What `train` did: steps in all, seconds of those of this call with their waiting, the signal that stopped it. */
export interface Trained {
  steps: number;
  seconds: number;
  interrupted?: StopSignal;
}

/**
 * Trains from the folder's step to the end, or until a signal.
 * @param ahead as of `Trainer.step`
 */
export async function train(
  trainer: Trainer,
  run: RunFolder,
  next: () => Promise<Batch>,
  ahead?: () => void,
): Promise<Trained> {
  const { steps } = trainer.config;
  using stop = new Stop();
  const progress = new Progress(steps);
  let saved = run.step;
  let done = run.step;
  const begin = performance.now();
  let savedAt = begin;
  for (let step = run.step; step < steps && !stop.signal; step++) {
    const batch = await Promise.race([next(), stop.came]).catch(async (error) => {
      // Bad data, or a pipe that ended, costs no step that is done.
      if (done > saved) await run.save(done, trainer.parameters, trainer.state());
      throw error;
    });
    const metric = batch && await trainer.step(step, batch, ahead).catch((error) => {
      if (!(error instanceof StepFailure)) throw error;
      const kept = saved ? `the checkpoint of step ${saved} is whole` : "there is no checkpoint yet";
      throw new UserError(`${error.message}; ${kept}, go on with --resume`);
    });
    if (!metric) break;
    run.note(metric);
    done = step + 1;
    progress.show(metric, memory().peakBytes);
    if (performance.now() - savedAt > 300_000) {
      await run.save(done, trainer.parameters, trainer.state());
      [saved, savedAt] = [done, performance.now()];
    }
  }
  const seconds = (performance.now() - begin) / 1000;
  cancel(false);
  await wait();
  if (done > saved || (!run.step && !done)) await run.save(done, trainer.parameters, trainer.state());
  if (done === steps) return { steps, seconds };
  log(`stopped after step ${done} of ${steps}; go on with --resume`);
  return { steps: done, seconds, interrupted: stop.signal };
}

/** Median seconds of 20 steps (after one that warms up) with their data. Changes the trainer: for `--estimate` only. */
export async function estimate(
  trainer: Trainer,
  next: () => Promise<Batch>,
  ahead?: () => void,
): Promise<number> {
  const times: number[] = [];
  for (let step = 0; step <= 20; step++) {
    const begin = performance.now();
    await trainer.step(Math.min(step, trainer.config.steps - 1), await next(), ahead);
    if (step) times.push((performance.now() - begin) / 1000);
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
}
