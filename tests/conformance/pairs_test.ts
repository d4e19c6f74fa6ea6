/**
 * Every method of the registry on every family of networks: finite loss that falls on a fixed batch, gradients in every
 * parameter, same seed same bits, resume equals no stop, an encoder that fine-tuning loads.
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { UserError } from "../../lib/errors.ts";
import { methods } from "../../lib/methods/registry.ts";
import type { Method } from "../../lib/methods/method.ts";
import type { Architecture } from "../../lib/nn/network.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { RunFolder } from "../../lib/train/run_folder.ts";
import { readRun, transferEncoder } from "../../lib/train/transfer.ts";
import { leakFree } from "../ops/wave.ts";
import { batch } from "../parity/batch.ts";
import { families, tinyRun } from "../parity/tiny.ts";

/** Parameters that a training step may leave without gradient, and why. */
const EXCEPTIONS: [name: RegExp, why: string][] = [
  [/^decoder\.seg_layers\.(?!1\.)/, "heads of deep supervision run in nnU-Net only; checkpoints hold them"],
  [/^ae: mask_token$/, "nothing is hidden"],
  [/\.conv\.bias$/, "a norm that takes means away follows: the gradient is zero"],
  [/^(patch_)?(projector\.\d|predictor\.0)\.bias$/, "the same"],
];

/** Steps `from` to `to`, on a fixed batch or each on its own. */
async function losses(trainer: Trainer, from: number, to: number, fixed = false): Promise<number[]> {
  const { patch, batch: images } = trainer.config;
  const out: number[] = [];
  for (let step = from; step < to; step++) {
    const metric = await trainer.step(step, batch(fixed ? 0 : step, patch[0], images, trainer.method.views));
    out.push(metric!.loss);
  }
  return out;
}

const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;

async function learns(method: Method, arch: Architecture): Promise<void> {
  using trainer = new Trainer(arch, method, tinyRun(method, arch));
  const seen = await losses(trainer, 0, 30, true);
  assert(seen.every(Number.isFinite), `losses ${seen}`);
  assert(mean(seen.slice(-5)) < mean(seen.slice(0, 5)), `losses ${seen}`);
  const state = trainer.state();
  // The first moment of either optimizer is a sum of all gradients so far.
  const still = [...trainer.parameters.tensors.keys()].filter((name) => {
    const moment = state.get(`${name}.momentum`) ?? state.get(`${name}.exp_avg`);
    return moment!.read().every((v) => v === 0);
  });
  assertEquals(
    still.filter((name) =>
      !EXCEPTIONS.some(([pattern]) => pattern.test(name) || pattern.test(`${method.name}: ${name}`))
    ),
    [],
  );
}

async function resumes(method: Method, arch: Architecture): Promise<void> {
  const config = tinyRun(method, arch);
  const folder = await Deno.makeTempDir();
  const path = join(folder, "run");
  try {
    using whole = new Trainer(arch, method, config);
    const uninterrupted = await losses(whole, 0, 4);
    const early = await (async () => {
      const run = await RunFolder.open(path, config, false);
      using before = new Trainer(arch, method, config);
      const seen = await losses(before, 0, 2);
      await run.save(2, before.parameters, before.state());
      run.close();
      return seen;
    })();
    const run = await RunFolder.open(path, config, true);
    assertEquals(run.step, 2);
    using after = new Trainer(arch, method, config);
    await run.load(after.parameters, after.state());
    assertEquals([...early, ...await losses(after, 2, 4)], uninterrupted);
    for (const [name, tensor] of after.parameters.tensors) {
      assertEquals(tensor.read(), whole.parameters.tensors.get(name)!.read(), name);
    }
    await run.save(4, after.parameters, after.state());
    run.close();
    using tuned = new Parameters(0);
    arch.build(tuned, 1, 3, { patch: config.patch });
    const loaded = transferEncoder(tuned, await readRun(path), arch);
    const values = loaded.reduce((sum, name) => sum + tuned.tensors.get(name)!.length, 0);
    assertEquals(values, after.encoderParameters);
    for (const name of loaded) {
      assertEquals(tuned.tensors.get(name)!.read(), after.parameters.tensors.get(name)!.read(), name);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** These share the code of cva: one CNN and one token network are enough. */
const VARIANTS = ["contrastive-mae", "c-cva", "gram"];

/** Whether the pair trains; where it does not, the refusal must name both. */
function fits(method: Method, arch: Architecture): boolean {
  try {
    new Trainer(arch, method, tinyRun(method, arch))[Symbol.dispose]();
    return true;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    for (const name of [arch.name, method.name]) {
      assert(error.message.includes(name), `"${error.message}" does not name ${name}`);
    }
    return false;
  }
}

for (const arch of families()) {
  for (const method of methods.filter((m) => !m.first)) { // a recipe of two stages trains what cva trains
    if (VARIANTS.includes(method.name) && !/resenc|primus/.test(arch.name)) continue;
    const pair = `${method.name} on ${arch.name}`;
    Deno.test(
      `${pair}: the loss is finite and falls on a fixed batch, every parameter has a gradient`,
      leakFree(async () => {
        if (fits(method, arch)) await learns(method, arch);
      }),
    );
    Deno.test(
      `D13 ${pair}: same seed same bits, resume equals no stop, fine-tuning loads the encoder`,
      leakFree(async () => {
        if (fits(method, arch)) await resumes(method, arch);
      }),
    );
  }
}
