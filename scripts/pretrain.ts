/** Pretrains a network on a volume store: store (+ pairs) -> run folder. */
import { join } from "@std/path";
import { architecture, architectures } from "../lib/arch/registry.ts";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { Loader } from "../lib/data/loader.ts";
import { readPairs } from "../lib/data/pairs.ts";
import type { Pair } from "../lib/data/views.ts";
import { decode } from "../lib/data/safetensors.ts";
import { Store } from "../lib/data/store.ts";
import { UsageError, UserError } from "../lib/errors.ts";
import { method, methods } from "../lib/methods/registry.ts";
import { native } from "../lib/native/library.ts";
import { writeReport } from "../lib/report/pretraining.ts";
import { memory, wait } from "../lib/tensor.ts";
import { estimate, train, Trainer } from "../lib/train/pretrain.ts";
import { firstStore } from "../lib/train/first_store.ts";
import { type RunConfig, RunFolder } from "../lib/train/run_folder.ts";

/** Steps of the S3D paper. */
const STEPS = 250_000;

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
    method: { type: "string", default: "mae", help: methods.map((m) => m.name).join(", ") },
    arch: {
      type: "string",
      help: `${architectures.map((a) => a.name).join(", ")} (default resenc-l; resenc-s without STORE)`,
    },
    patch: {
      type: "integer",
      min: 8,
      help: "side of a cubic patch in voxels (default 160; 32 without STORE)",
    },
    batch: { type: "integer", min: 1, default: 2, help: "images per step" },
    steps: { type: "integer", min: 1, help: "optimizer steps (default 250000; 100 without STORE)" },
    seed: { type: "integer", min: 0, default: 0, help: "of weights, crops and masks" },
    lr: { type: "number", min: 0, default: 0.01, help: "peak learning rate" },
    cell: { type: "integer", min: 1, help: "side of a mask cell in voxels (default: the method's)" },
    pairs: {
      type: "string",
      access: "read",
      help: "crop pairs as JSON lines: a file, or - for standard input",
    },
    from: { type: "string", access: "read", help: "run folder whose weights to start from" },
    device: { type: "string", default: "auto", choices: ["auto", "cpu", "cuda"], help: "where to compute" },
    resume: { type: "boolean", help: "go on from the last checkpoint of the run folder" },
    estimate: { type: "boolean", help: "time 20 steps, say how long the run will take, write nothing" },
  },
};

/** Paths beyond the named ones: without STORE the phantoms live beside the run. */
export function extraGrants(args: Arguments): { read: string[]; write: string[] } {
  const paths = args.flags.out && args.positionals[0] ? [] : ["runs"];
  return { read: paths, write: paths };
}

function device(wanted: string): void {
  if (wanted === "cpu") return;
  let why = "the CUDA path of this build does not train yet";
  try {
    native().vx_cuda_devices();
  } catch (error) {
    why = (error as Error).message;
  }
  if (wanted === "cuda") throw new UserError(`--device cuda: ${why}; use --device cpu`);
  log(`computing on the CPU: ${why}`);
}

/** The pairs of --pairs, as many as the run needs: without --steps, as many as there are. */
async function listPairs(
  flags: Arguments["flags"],
  store: Store,
  patch: [number, number, number],
): Promise<Pair[]> {
  if (method(flags.method).views !== 2) {
    throw new UsageError(`--pairs: ${flags.method} takes single views; use --method cva`);
  }
  const stdin = flags.pairs === "-";
  const stream = stdin ? Deno.stdin.readable : (await Deno.open(flags.pairs)).readable;
  const needed = (flags.steps ?? STEPS) * flags.batch;
  const pairs: Pair[] = [];
  for await (const pair of readPairs(stream, stdin ? "standard input" : flags.pairs, store, patch)) {
    if (pairs.push(pair) >= needed) break;
  }
  const short = flags.steps !== undefined && pairs.length < needed;
  if (short || pairs.length < flags.batch) {
    throw new UserError(
      `--pairs ${flags.pairs}: ${pairs.length} pairs, ${
        short ? needed : flags.batch
      } are needed; give more or lower --steps`,
    );
  }
  return pairs;
}

async function main({ positionals: [given], flags }: Arguments): Promise<void> {
  const chosen = method(flags.method);
  const arch = architecture(flags.arch ?? (given ? "resenc-l" : "resenc-s"));
  device(flags.device);
  if (flags.cell !== undefined && !("cell" in chosen.options)) {
    throw new UsageError(`--cell: ${chosen.name} has no mask cells`);
  }
  const side = flags.patch ?? (given ? 160 : 32);
  const store = await Store.open(given ?? await firstStore(join("runs", "first-store")));
  const patch: [number, number, number] = [side, side, side];
  const pairs = flags.pairs === undefined ? undefined : await listPairs(flags, store, patch);
  const options = { ...chosen.options, ...(flags.cell === undefined ? {} : { cell: flags.cell }) };
  // A small patch has room for few cells: without --cell the default shrinks to half the patch.
  if (flags.cell === undefined && options.cell > side / 2) options.cell = side / 2;
  const config: RunConfig = {
    method: chosen.name,
    arch: arch.name,
    patch,
    batch: flags.batch,
    steps: flags.steps ?? (pairs ? Math.floor(pairs.length / flags.batch) : given ? STEPS : 100),
    seed: flags.seed,
    lr: flags.lr,
    options,
    data: await store.hash(),
  };
  const path = flags.out ?? join("runs", `${chosen.name}-${arch.name}`);
  const begin = performance.now();
  const trainer = new Trainer(arch, chosen, config);
  const loader = (start: number, pairs?: ReturnType<typeof readPairs>) =>
    new Loader({
      store,
      patch: config.patch,
      batch: config.batch,
      seed: config.seed,
      views: chosen.views,
      start,
      pairs,
    });
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
    const source = loader(folder.step);
    const steps = await train(trainer, folder, () => source.next());
    await writeReport(folder, trainer, loader(0), source.waited);
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
