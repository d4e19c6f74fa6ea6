/** report.html of a pretraining run: curves, configuration, and what the network makes of a few fixed crops. */
import { join } from "@std/path";
import { Tape } from "../autograd.ts";
import type { Loader, Source } from "../data/loader.ts";
import { Rng } from "../rng.ts";
import { scope, volume } from "../tensor.ts";
import type { Trainer } from "../train/pretrain.ts";
import { writeWhole } from "../files.ts";
import type { RunFolder } from "../train/run_folder.ts";
import { EXPLANATION, featurePictures } from "./features.ts";
import { runReport } from "./run.ts";
import { page, percentileWindow } from "./slices.ts";

/** Crops of the first batch shown in a report. */
const SHOWN = 3;

/** Crop pairs whose features are shown. */
const PAIRS = 2;

/** Target, masked input, reconstruction and difference of the first crops, each in three planes; one row per crop. */
async function reconstructions(trainer: Trainer, loader: Loader): Promise<{ name: string; png: Uint8Array }> {
  const { patch, seed } = trainer.config;
  const batch = await loader.next();
  const { output, hidden, whole } = await scope(() => {
    const outcome = Tape.none(() => trainer.learner.loss({ batch, random: new Rng(seed, "mask", 0) }));
    return { output: outcome.output.read(), hidden: outcome.hidden, whole: outcome.whole };
  });
  const [size, { images, inputs = images }] = [volume(patch), batch];
  const rows = Array.from({ length: Math.min(SHOWN, output.length / size) }, (_, n) => {
    const part = (values: Float32Array) => values.slice(n * size, (n + 1) * size);
    const image = part(images);
    const mask = part(hidden);
    const input = part(inputs);
    const made = part(output).map((v, i) => whole || mask[i] ? v : image[i]);
    const window = percentileWindow(image);
    const span = window[1] - window[0];
    return [
      { values: image, shape: patch, window },
      { values: input.map((v, i) => mask[i] ? window[0] : v), shape: patch, window },
      { values: made, shape: patch, window },
      { values: made.map((v, i) => Math.abs(v - image[i])), shape: patch, window: [0, span / 2] as const },
    ];
  });
  const names = [
    batch.inputs ? "target" : "input",
    batch.inputs ? "masked input with changed intensities" : "masked input",
    whole ? "reconstruction" : "hidden voxels reconstructed",
    "difference; each axial, coronal, sagittal",
  ];
  return { name: names.join(", "), png: await page(rows, Math.max(1, Math.round(96 / patch[0]))).png() };
}

/** Writes report.html into the run folder. `waited`: seconds that training waited for data. */
export async function writeReport(
  run: RunFolder,
  trainer: Trainer,
  loader: Loader,
  waited: number,
  store: Source,
): Promise<void> {
  const picture = await reconstructions(trainer, loader);
  loader.close();
  const { config, metrics } = run;
  const features = await featurePictures(trainer.network, store, config.patch, config.seed, PAIRS);
  const html = runReport({
    config: { ...config },
    metrics,
    crops: [picture],
    features: { explanation: EXPLANATION, pictures: features },
    summary: {
      steps: metrics.at(-1)?.step ?? 0,
      loss: metrics.at(-1)?.loss ?? null,
      parameters: trainer.networkParameters,
      encoder_parameters: trainer.encoderParameters,
      seconds: Number(metrics.reduce((sum, m) => sum + m.seconds, 0).toFixed(1)),
      seconds_waiting_for_data: Number(waited.toFixed(2)),
      waiting_for_data_percent: Number(
        (100 * waited / (waited + metrics.reduce((sum, m) => sum + m.seconds, 1e-9))).toFixed(1),
      ),
    },
  });
  await writeWhole(join(run.path, "report.html"), html);
}
