/** Pretrains a network on a volume store: store (+ pairs) -> run folder. */
import { join } from "@std/path";
import { architectures } from "../lib/arch/registry.ts";
import { type Arguments, type Command, run, writeLine } from "../lib/config.ts";
import { chooseDevice, deviceFlags } from "../lib/device.ts";
import { isMethodFile, methods } from "../lib/methods/registry.ts";
import { precisions } from "../lib/nn/precision.ts";
import { plan } from "../lib/train/plan.ts";
import { estimateRun, pretrain, pretrainStages } from "../lib/train/run.ts";
import { stopCode } from "../lib/train/stop.ts";
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
    steps: {
      type: "integer",
      min: 1,
      help: "optimizer steps (default: the paper's, 250000 for most methods; 100 without STORE)",
    },
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
      choices: precisions,
      help: "storage of activations; bf16 takes half the memory, bf16-exact convolves it in f32",
    },
    recompute: {
      type: "boolean",
      help: "compute blocks again in the backward pass: less memory, more time (resenc, primus)",
    },
    ...deviceFlags,
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

async function main(given: Arguments): Promise<number> {
  const args = await withConfig(command, given);
  const { out, device, kernels, estimate, resume = false, from } = args.flags;
  // On a GPU products are bf16 in any case: activations then take half the memory.
  if (chooseDevice(device, kernels) === "cuda" && !args.given.has("precision")) args.flags.precision = "bf16";
  const planned = await plan(args);
  if (estimate) {
    writeLine(await estimateRun(planned));
    return 0;
  }
  const { arch, method, first } = planned;
  const path = out ?? join("runs", `${method.name}-${arch.name}`);
  const options = { resume, from };
  const summary = first
    ? await pretrainStages({ ...planned, first }, path, options)
    : await pretrain(planned, path, options);
  writeLine(summary);
  return stopCode(summary.interrupted);
}

if (import.meta.main) await run(command, main);
