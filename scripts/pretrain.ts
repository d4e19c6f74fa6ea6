/** Pretrains a network on a volume store: store (+ pairs) -> run folder. */
import { join } from "@std/path";
import { architectures } from "../lib/arch/registry.ts";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { Loader } from "../lib/data/loader.ts";
import type { Pair } from "../lib/data/views.ts";
import { decode } from "../lib/data/safetensors.ts";
import { chooseDevice } from "../lib/device.ts";
import { UserError } from "../lib/errors.ts";
import { isMethodFile, methods } from "../lib/methods/registry.ts";
import { writeReport } from "../lib/report/pretraining.ts";
import { memory, wait } from "../lib/tensor.ts";
import { plan } from "../lib/train/plan.ts";
import { estimate, train, Trainer } from "../lib/train/pretrain.ts";
import { RunFolder } from "../lib/train/run_folder.ts";
import { withConfig } from "../lib/train/settings.ts";

export const command: Command = {
  name: "pretrain",
  summary:
    "Pretrains a network on a volume store. With no STORE it makes phantoms and trains a small network on them.",
  positionals: [{
    name: "STORE",
    help: "volume store of deno task preprocess",
    access: "read",
    optional: true,
  }],
  flags: {
    out: { type: "string", short: "o", access: "write", help: "run folder (default runs/METHOD-ARCH)" },
    method: {
      type: "string",
      default: "mae",
      help: `${methods.map((m) => m.name).join(", ")}, or a .ts file that exports one`,
    },
    arch: {
      type: "string",
      help: `${architectures.map((a) => a.name).join(", ")} (default resenc-l; resenc-s without STORE)`,
    },
    patch: {
      type: "string",
      help: "side of a patch in voxels, or z, y, x as in 32x160x160 (default 160; 32 without STORE)",
    },
    batch: { type: "integer", min: 1, default: 2, help: "images per step" },
    steps: { type: "integer", min: 1, help: "optimizer steps (default 250000; 100 without STORE)" },
    seed: { type: "integer", min: 0, default: 0, help: "of weights, crops and masks" },
    lr: { type: "number", min: 0, help: "peak learning rate (default: the method's and network's)" },
    cell: { type: "integer", min: 1, help: "side of a mask cell in voxels (default: the method's)" },
    option: { type: "string", repeat: true, help: "NAME=VALUE: an option of the method (docs/methods.md)" },
    compat: { type: "string", repeat: true, help: "published behaviour to bring back (docs/methods.md)" },
    config: { type: "string", access: "read", help: "JSON file with flags and options, such as a run.json" },
    pairs: {
      type: "string",
      access: "read",
      help: "crop pairs as JSON lines: a file, or - for standard input",
    },
    from: { type: "string", access: "read", help: "run folder whose weights to start from" },
    precision: {
      type: "string",
      default: "f32",
      choices: ["f32", "bf16"],
      help: "storage of activations; bf16 takes half the memory (resenc, unet)",
    },
    device: { type: "string", default: "auto", choices: ["auto", "cpu", "cuda"], help: "where to compute" },
    resume: { type: "boolean", help: "go on from the last checkpoint of the run folder" },
    estimate: { type: "boolean", help: "time 20 steps, say how long the run will take, write nothing" },
  },
};

/** Paths beyond the named ones: without STORE the phantoms live beside the run. */
export function extraGrants(args: Arguments): { read: string[]; write: string[] } {
  const paths = args.flags.out && args.positionals[0] ? [] : ["runs"];
  const { method } = args.flags;
  return { read: isMethodFile(method) ? [...paths, method] : paths, write: paths };
}

async function main(given: Arguments): Promise<void> {
  const args = await withConfig(command, given);
  const { flags } = args;
  chooseDevice(flags.device);
  const { arch, method: chosen, config, store, pairs } = await plan(args);
  const { patch } = config;
  const path = flags.out ?? join("runs", `${chosen.name}-${arch.name}`);
  const begin = performance.now();
  const trainer = new Trainer(arch, chosen, config);
  const { batch, seed } = config;
  const loader = (start: number, pairs?: AsyncIterable<Pair>) =>
    new Loader({ store, patch, batch, seed, views: chosen.views, reversal: chosen.reversal, start, pairs });
  if (flags.from) {
    const file = join(flags.from, "checkpoint", "weights.safetensors");
    const loaded = trainer.parameters.load(decode(await Deno.readFile(file), file).tensors, file);
    if (!loaded.length) {
      throw new UserError(`${file} holds no tensor of ${arch.name}; choose the --arch of that run`);
    }
    trainer.learner.start?.();
    log(`${loaded.length} of ${trainer.parameters.tensors.size} tensors from ${file}`);
  }
  const sizes = { parameters: trainer.networkParameters, encoder_parameters: trainer.encoderParameters };
  if (flags.estimate) {
    const source = loader(0);
    const seconds = await estimate(trainer, () => source.next());
    source.close();
    trainer[Symbol.dispose]();
    writeLine({
      ...sizes,
      seconds_per_step: seconds,
      steps: config.steps,
      seconds: seconds * config.steps,
      device: "cpu",
    });
    return;
  }
  const folder = await RunFolder.open(path, config, flags.resume === true);
  try {
    if (folder.step) await folder.load(trainer.parameters, trainer.state());
    const source = loader(folder.step, pairs);
    const steps = await train(trainer, folder, () => source.next());
    // A stopped run ends at once: its report comes with its last step.
    if (steps === config.steps) await writeReport(folder, trainer, loader(0), source.waited, store);
    source.close();
    trainer[Symbol.dispose]();
    await wait();
    const seconds = (performance.now() - begin) / 1000;
    const times = folder.metrics.map((m) => m.seconds).sort((a, b) => a - b);
    const last = folder.metrics.at(-1);
    writeLine({
      run: path,
      steps,
      ...sizes,
      loss: last?.loss ?? null,
      seconds: Number(seconds.toFixed(2)),
      steps_per_second: times.length ? Number((1 / times[times.length >> 1]).toFixed(3)) : null,
      seconds_waiting_for_data: Number(source.waited.toFixed(2)),
      peak_memory_bytes: memory().peakBytes,
      live_bytes: memory().bytes,
      device: "cpu",
    });
  } finally {
    folder.close();
  }
}

if (import.meta.main) await run(command, main);
