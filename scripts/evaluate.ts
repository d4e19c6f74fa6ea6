/** Predictions and truth -> metric rows (JSON lines on standard output). */
import { basename, dirname, join, resolve } from "@std/path";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { UsageError } from "../lib/errors.ts";
import {
  datasetPath,
  findLabels,
  imagePredictions,
  type Origin,
  pairFiles,
  readJson,
  type Row,
  scoreCase,
  scoreImages,
  trainedOn,
  truthFolder,
} from "../lib/eval/evaluate.ts";
import { Countdown } from "../lib/train/progress.ts";

export const command: Command = {
  name: "evaluate",
  summary:
    "Scores segmentations against their truth, one JSON line per case, metric and label (regions: 1+2+3, their union);\n" +
    "or predictions.csv against " +
    "labels.csv, one line per metric. Who predicted is read from PREDICTIONS/prediction.json; flags stand above it.",
  positionals: [
    {
      name: "PREDICTIONS",
      help: "folder of label maps (or one), .nii or .nii.gz; or with predictions.csv",
      access: "read",
    },
    {
      name: "TRUTH",
      help:
        "folder of label maps of the same names (or one file), dataset.json beside it; or a dataset: labelsTr, labels.csv",
      access: "read",
    },
  ],
  flags: {
    metrics: { type: "string", help: "of segmentations: dsc, nsd or both, with a comma", default: "dsc,nsd" },
    tolerance: { type: "number", help: "tolerance of NSD in mm", default: 1, min: 0 },
    method: { type: "string", help: "method of the rows (else prediction.json, else the folder's name)" },
    arch: { type: "string", help: "architecture of the rows (else prediction.json, else unknown)" },
    task: { type: "string", help: "task of the rows (else prediction.json, else segmentation)" },
    dataset: {
      type: "string",
      help: "dataset of the rows (else prediction.json, else dataset.json, else the folder)",
    },
    fold: { type: "string", help: "fold of the rows (else prediction.json, else 0)" },
    seed: { type: "integer", help: "seed of the rows (else prediction.json, else 0)" },
  },
};

/** `dataset.json` lies beside the folder of the truth, outside of it. */
export function extraGrants({ positionals }: Arguments): { read: string[]; write: string[] } {
  return { read: [datasetPath(positionals[1])], write: [] };
}

/** prediction.json of a folder of predictions. */
const writtenIn = async (folder: string) => await readJson(join(resolve(folder), "prediction.json")) ?? {};

/** Who predicted: flags, else prediction.json of the folder, else its name. */
function originOf(
  written: Record<string, unknown>,
  folder: string,
  flags: Arguments["flags"],
  task: string,
  dataset: string,
): Origin {
  const text = (key: string, fallback: string) => String(flags[key] ?? written[key] ?? fallback);
  const fold = text("fold", "0");
  return {
    method: text("method", basename(resolve(folder))),
    arch: text("arch", "unknown"),
    task: text("task", task),
    dataset: text("dataset", dataset),
    fold: fold.trim() === "" || Number.isNaN(Number(fold)) ? fold : Number(fold),
    seed: Number(flags.seed ?? written.seed ?? 0),
  };
}

/** Reads the files, writes the rows when all cases are scored: a failure leaves no half table. */
async function main({ positionals: [predictions, given], flags }: Arguments): Promise<void> {
  const metrics = [...new Set(String(flags.metrics).toUpperCase().split(",").map((m) => m.trim()))];
  const unknown = metrics.find((m) => m !== "DSC" && m !== "NSD");
  if (unknown !== undefined) {
    throw new UsageError(`--metrics is "${flags.metrics}"; it must be dsc, nsd or dsc,nsd`);
  }

  const started = performance.now();
  const images = await imagePredictions(predictions);
  if (images) {
    const { metrics, cases, unpredicted, task } = await scoreImages(images, given);
    const folder = given.endsWith(".csv") ? dirname(given) : given;
    const name = (await readJson(join(folder, "dataset.json")))?.name;
    const written = await writtenIn(dirname(images));
    const origin = originOf(written, dirname(images), flags, task, String(name ?? basename(resolve(folder))));
    for (const [metric, value] of Object.entries(metrics)) writeLine({ ...origin, metric, value });
    const missing = unpredicted.length ? `, ${unpredicted.length} cases of the truth without prediction` : "";
    const warning = trainedOn(written, cases, name);
    if (warning) log(`evaluate: ${warning}`);
    return log(`evaluate: ${cases.length} cases${missing}`);
  }
  const truth = await truthFolder(given);
  const { pairs, unpredicted } = await pairFiles(predictions, truth);
  const labels = await findLabels(truth, pairs);
  const folder = pairs[0].prediction === predictions ? dirname(predictions) : predictions;
  const written = await writtenIn(folder);
  const origin = originOf(
    written,
    folder,
    flags,
    "segmentation",
    labels.name ?? basename(dirname(datasetPath(truth))),
  );

  const rows: Row[] = [];
  const left = new Countdown(pairs.length);
  for (const [i, pair] of pairs.entries()) {
    rows.push(...await scoreCase(pair, labels, metrics as Row["metric"][], flags.tolerance, origin));
    left.show("evaluate:", i + 1, 10_000);
  }
  rows.forEach(writeLine);
  const means = metrics.map((metric) => {
    const values = rows.flatMap((row) => row.metric === metric && row.value !== null ? [row.value] : []);
    return `, mean ${metric} ${
      values.length ? (values.reduce((a, b) => a + b) / values.length).toFixed(4) : "undefined"
    }`;
  });
  const warning = trainedOn(written, pairs.map((pair) => pair.case), labels.name);
  if (warning) log(`evaluate: ${warning}`);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const missing = unpredicted.length ? `, ${unpredicted.length} cases of the truth without prediction` : "";
  log(
    `evaluate: ${pairs.length} cases, ${labels.structures.length} labels from ${labels.source}${
      means.join("")
    }${missing}, ${seconds} s`,
  );
}

if (import.meta.main) await run(command, main);
