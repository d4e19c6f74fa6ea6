/** A pretraining run from its plan to its folder: start weights, steps, report. */
import { join } from "@std/path";
import { log } from "../config.ts";
import { Loader } from "../data/loader.ts";
import type { Pair } from "../data/views.ts";
import { device } from "../device.ts";
import { gib, makeRoom } from "../gpu/room.ts";
import { pairDefects } from "../methods/compat.ts";
import { writeReport } from "../report/pretraining.ts";
import { memory, wait } from "../tensor.ts";
import type { Plan } from "./plan.ts";
import { estimate, train, Trainer } from "./pretrain.ts";
import { RunFolder } from "./run_folder.ts";
import type { StopSignal } from "./stop.ts";
import { continueFrom, fingerprint, readRun } from "./transfer.ts";

/** Batches of a plan from step `start` on. */
function loaderOf({ config, method, store }: Plan, start: number, pairs?: AsyncIterable<Pair>): Loader {
  const { patch, batch, seed, compat } = config;
  const { views, reversal } = method;
  return new Loader({
    store,
    patch,
    batch,
    seed,
    views,
    reversal,
    start,
    pairs,
    defects: pairDefects(compat),
    later: device() === "cuda",
  });
}

/** Says what a step will need, before the first one. @throws UserError where this machine or its GPU has less */
async function announce(trainer: Trainer): Promise<number> {
  const { arch, method, config } = trainer;
  const fixed = memory().bytes;
  const bytes = await trainer.plan();
  const saves = device() === "cuda" && arch.recomputes && !config.recompute;
  const recomputed = saves ? await trainer.plan(true) : undefined;
  const need = { bytes, fixed, batch: config.batch, least: method.views, recomputed };
  makeRoom(need, "lower --patch or --batch, or give --precision bf16 or --recompute");
  return bytes;
}

/** What waiting for data took of the `seconds` of all steps. */
const waiting = (waited: number, seconds: number) => ({
  seconds_waiting_for_data: Number(waited.toFixed(2)),
  waiting_for_data_percent: Number((100 * waited / Math.max(seconds, 1e-9)).toFixed(1)),
});

const sizes = (trainer: Trainer) => ({
  parameters: trainer.networkParameters,
  encoder_parameters: trainer.encoderParameters,
});

/** Times 20 steps, of either stage where there are two. Writes nothing. */
export async function estimateRun(plan: Plan): Promise<{ seconds: number } & Record<string, unknown>> {
  const before = plan.first && await estimateRun(plan.first);
  using trainer = new Trainer(plan.arch, plan.method, plan.config);
  const planned_memory_bytes = await announce(trainer);
  const source = loaderOf(plan, 0);
  const seconds = await estimate(trainer, () => source.next(), () => source.ahead());
  await source.close();
  const { steps } = plan.config;
  const peak_memory_bytes = memory().peakBytes;
  return {
    ...sizes(trainer),
    seconds_per_step: seconds,
    steps,
    seconds: seconds * steps + (before?.seconds ?? 0),
    planned_memory_bytes,
    peak_memory_bytes,
    device: device(),
    ...(before && { stage_1: before }),
  };
}

/**
 * Trains a plan into the folder `path`.
 * @param from run folder whose weights to start from
 * @returns the summary line
 */
export async function pretrain(
  plan: Plan,
  path: string,
  { resume, from }: { resume: boolean; from?: string },
): Promise<{ steps: number; interrupted?: StopSignal } & Record<string, unknown>> {
  const begin = performance.now();
  using trainer = new Trainer(plan.arch, plan.method, plan.config);
  let { config } = plan;
  if (from !== undefined) {
    const source = await readRun(from);
    const loaded = continueFrom(trainer.parameters, source, plan.arch, plan.method.fresh);
    trainer.learner.start?.();
    config = { ...config, from: await fingerprint(source.file) };
    log(`${loaded.length} of ${trainer.parameters.tensors.size} tensors from ${source.file}`);
  }
  const folder = await RunFolder.open(path, config, resume);
  try {
    if (folder.step) await folder.load(trainer.parameters, trainer.state());
    if (config.compat?.includes("nnssl-teacher-restart")) trainer.learner.start?.();
    const planned_memory_bytes = await announce(trainer);
    const source = loaderOf(plan, folder.step, plan.pairs);
    const { steps, seconds: trained, interrupted } = await train(
      trainer,
      folder,
      () => source.next(),
      () => source.ahead(),
    );
    // A stopped run ends at once: its report comes with its last step.
    if (steps === config.steps) {
      await writeReport(folder, trainer, loaderOf(plan, 0), source.waited, plan.store);
    }
    await source.close();
    trainer[Symbol.dispose]();
    await wait();
    log(`memory: ${gib(memory().peakBytes)} at the peak of the run`);
    const seconds = (performance.now() - begin) / 1000;
    const here = steps - folder.step;
    return {
      run: path,
      steps,
      ...(interrupted && { interrupted }),
      ...sizes(trainer),
      loss: folder.metrics.at(-1)?.loss ?? null,
      seconds: Number(seconds.toFixed(2)),
      steps_per_second: here ? Number((here / trained).toFixed(3)) : null,
      ...waiting(source.waited, trained),
      planned_memory_bytes,
      peak_memory_bytes: memory().peakBytes,
      live_bytes: memory().bytes,
      device: device(),
    };
  } finally {
    folder.close();
  }
}

/**
 * A method of two stages: the first into `path/stage-1`, then the second into `path` from its weights. The same bits as
 * the two commands one after the other.
 * @returns the summary of the stage that ran last
 */
export async function pretrainStages(
  plan: Plan & { first: Plan },
  path: string,
  { resume, from }: { resume: boolean; from?: string },
): Promise<{ interrupted?: StopSignal } & Record<string, unknown>> {
  new Trainer(plan.arch, plan.method, plan.config)[Symbol.dispose](); // what is wrong with stage 2 shows now
  const before = join(path, "stage-1");
  log(`stage 1: ${plan.first.method.name}, ${plan.first.config.steps} steps, in ${before}`);
  const first = await pretrain(plan.first, before, { resume, from });
  if (first.steps < plan.first.config.steps) return first;
  log(`stage 2: ${plan.config.steps} steps, in ${path}`);
  return { ...await pretrain(plan, path, { resume, from: before }), stage_1: first };
}
