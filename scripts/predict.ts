/** Predicts with a model of finetune: model folder + NIfTI -> label maps on the images' own grids, or predictions.csv. */
import { join } from "@std/path";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { readCase } from "../lib/data/cases.ts";
import { writeNifti } from "../lib/data/nifti.ts";
import { encodeNpz } from "../lib/data/npz.ts";
import { formatPredictions } from "../lib/data/targets.ts";
import { explain, UsageError } from "../lib/errors.ts";
import { ImageModel } from "../lib/eval/image_model.ts";
import { findInputs, type Input } from "../lib/eval/inputs.ts";
import { openModel } from "../lib/eval/model.ts";
import { claim } from "../lib/eval/prediction.ts";
import { argmax, probabilities, type Segmenter } from "../lib/eval/segmenter.ts";
import { listedPaths } from "../lib/launch.ts";
import { chooseDevice, device, deviceFlags } from "../lib/device.ts";
import { cancel, memory } from "../lib/tensor.ts";
import { writeWhole } from "../lib/files.ts";
import { Countdown } from "../lib/train/progress.ts";
import { Stop, stopCode } from "../lib/train/stop.ts";
import { fingerprint } from "../lib/train/transfer.ts";

export const command: Command = {
  name: "predict",
  summary:
    "Predicts with a model of deno task finetune: CASE.nii.gz on the grid of each image, or one line per image in\n" +
    "predictions.csv (case,p_0,p_1 or case,value) where the model classifies or gives a number.",
  positionals: [
    { name: "MODEL", help: "model folder of deno task finetune", access: "read" },
    {
      name: "IN",
      help: "NIfTI files CASE_0000.nii.gz, folders of them, or - for a list",
      access: "read",
      variadic: true,
    },
  ],
  flags: {
    out: { type: "string", short: "o", access: "write", help: "folder for what is predicted" },
    probabilities: { type: "boolean", help: "also write CASE.npz with the probabilities [class, z, y, x]" },
    mirror: {
      type: "string",
      default: "all",
      choices: ["all", "none"],
      help: "segmentation: mean over the 8 mirrored copies, or one pass (8 times faster)",
    },
    ...deviceFlags,
  },
};

/** Segments one case and writes its files. False when it was cancelled. @throws UserError naming the bad file */
async function segment(model: Segmenter, input: Input, flags: Arguments["flags"]): Promise<boolean> {
  const { labels } = model.info;
  const read = await readCase(input.id, input.files, model.info.recipe);
  const logits = await model.logits(read, flags.mirror === "all");
  if (!logits) return false;
  const { shape: [z, y, x], affine, header } = read.file;
  const data = argmax(logits, labels.length).map((k) => labels[k]);
  const bytes = await writeNifti({ shape: [z, y, x], data, affine, like: header });
  if (flags.probabilities) {
    const values = probabilities(logits, labels.length);
    const npz = encodeNpz("probabilities", values, [labels.length, z, y, x]);
    await writeWhole(join(flags.out, `${input.id}.npz`), npz);
  }
  await writeWhole(join(flags.out, `${input.id}.nii.gz`), bytes);
  return true;
}

async function main({ positionals: [folder, ...given], flags }: Arguments): Promise<number> {
  const begin = performance.now();
  if (!flags.out) throw new UsageError("predict: -o is missing; name the folder for what is predicted");
  const listed = given.includes("-")
    ? listedPaths(new Uint8Array(await new Response(Deno.stdin.readable).arrayBuffer()))
    : [];
  const model = await openModel(folder);
  const inputs = await findInputs(
    given.filter((path) => path !== "-"),
    listed,
    model.info.channels.length,
  );
  chooseDevice(flags.device, flags.kernels);
  await Deno.mkdir(flags.out, { recursive: true });
  const { task, method, arch, dataset, fold, seed, labels, train } = model.info;
  const weights = await fingerprint(join(folder, "weights.safetensors"));
  const about = { method, arch, task, dataset, fold, seed, model: folder, weights, train };
  const segments = task === "segmentation";
  await claim(flags.out, about, segments ? inputs.map(({ id }) => `${id}.nii.gz`) : ["predictions.csv"]);
  using stop = new Stop();
  const left = new Countdown(inputs.length);
  const refused: { id: string; reason: string }[] = [];
  const answers = new Map<string, number[]>();
  let done = 0;
  for (const input of inputs) {
    if (stop.signal) break;
    try {
      if (input.problem) throw new UsageError(input.problem);
      if (model instanceof ImageModel) {
        const answer = await model.predict(await readCase(input.id, input.files, model.info.recipe));
        if (!answer) break;
        answers.set(input.id, answer);
      } else if (!await segment(model, input, flags)) break;
      done++;
      log(left.at(done + refused.length, ` ${input.id}`));
    } catch (error) {
      const reason = explain(error).message.replaceAll("\n", " ");
      refused.push({ id: input.id, reason });
      log(`predict: ${reason}`);
    }
  }
  model[Symbol.dispose]();
  cancel(false);
  if (!segments && answers.size) {
    await writeWhole(
      join(flags.out, "predictions.csv"),
      formatPredictions({ task, labels, cases: answers }),
    );
  }
  if (stop.signal) log(`predict: stopped after ${done} of ${inputs.length} cases`);
  const { tensors, peakBytes } = memory();
  writeLine({
    predictions: flags.out,
    cases: done,
    refused,
    ...(stop.signal && { interrupted: stop.signal }),
    seconds: Number(((performance.now() - begin) / 1000).toFixed(2)),
    peak_memory_bytes: peakBytes,
    live_tensors: tensors,
    device: device(),
  });
  return stopCode(stop.signal) || (refused.length ? 1 : 0);
}

if (import.meta.main) await run(command, main);
