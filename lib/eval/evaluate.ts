/** Scores segmentations against their truth: one metric row per case, metric and label. */
import { basename, dirname, join, resolve } from "@std/path";
import { log } from "../config.ts";
import { readNifti, type Volume } from "../data/nifti.ts";
import { sameGrid } from "../data/regrid.ts";
import { readPredictions, readTargets } from "../data/targets.ts";
import { UserError } from "../errors.ts";
import { dice, overlaps } from "./dice.ts";
import { imageMetrics } from "./image_metrics.ts";
import { nsd } from "./nsd.ts";

/** What a row says about the model that predicted. */
export interface Origin {
  method: string;
  arch: string;
  task: string;
  dataset: string;
  fold: number | string;
  seed: number;
}

/** One line of the output; `value` is a fraction, null when the label is in neither map. */
export interface Row extends Origin {
  case: string;
  metric: "DSC" | "NSD";
  label: number;
  value: number | null;
}

/** A prediction and its truth on disk. */
export interface Pair {
  case: string;
  prediction: string;
  truth: string;
}

/** Labels to score, the value to leave out of the score, the name of the data. */
export interface Labels {
  labels: number[];
  ignore?: number;
  name?: string;
  source: string;
}

const ENDING = /\.nii(\.gz)?$/;

/** `dataset.json` of a truth folder (or file): beside the folder. */
export function datasetPath(truth: string): string {
  return join(dirname(resolve(ENDING.test(truth) ? dirname(truth) : truth)), "dataset.json");
}

/** JSON object in `path`, or undefined without that file. @throws UserError when it is no JSON object */
export async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
  } catch { /* said below */ }
  throw new UserError(`${path}: this is not a JSON object; repair or remove it`);
}

/**
 * Pairs the files of a folder of predictions (or one file) with the truth.
 * @returns pairs by case name, and the cases of the truth that have no prediction
 * @throws UserError for a prediction without truth, a case with two files, no prediction at all
 */
export async function pairFiles(
  predictions: string,
  truth: string,
): Promise<{ pairs: Pair[]; unpredicted: string[] }> {
  const predicted = await list(predictions);
  const known = await list(truth);
  if (predicted.size === 0) {
    throw new UserError(`${predictions}: no .nii or .nii.gz file is here; give the folder of predictions`);
  }
  if (ENDING.test(predictions) && ENDING.test(truth)) {
    const [[name, prediction]] = predicted;
    return { pairs: [{ case: name, prediction, truth }], unpredicted: [] };
  }
  const pairs = [...predicted].map(([name, prediction]) => {
    const file = known.get(name);
    if (!file) {
      throw new UserError(
        `${prediction}: ${truth} holds no truth for this case; add ${name}.nii.gz or remove the prediction`,
      );
    }
    return { case: name, prediction, truth: file };
  });
  return { pairs, unpredicted: [...known.keys()].filter((name) => !predicted.has(name)) };
}

async function list(path: string): Promise<Map<string, string>> {
  const files: string[] = [];
  if (ENDING.test(path) && (await Deno.stat(path)).isFile) files.push(path);
  else {
    for await (const entry of Deno.readDir(path)) {
      if (!entry.isDirectory && ENDING.test(entry.name) && !entry.name.startsWith(".")) {
        files.push(join(path, entry.name));
      }
    }
  }
  const cases = new Map<string, string>();
  for (const file of files.sort()) {
    const name = basename(file).replace(ENDING, "");
    if (cases.has(name)) {
      throw new UserError(`${file}: case ${name} is there twice, as .nii and as .nii.gz; remove one`);
    }
    cases.set(name, file);
  }
  return cases;
}

/**
 * Labels to score: those of `dataset.json` (names -> integers or lists of integers; background 0 and `ignore` left
 * out), else all values but 0 in the files.
 */
export async function findLabels(truth: string, pairs: Pair[]): Promise<Labels> {
  const path = datasetPath(truth);
  const json = await readJson(path);
  const found = new Set<number>();
  if (!json) {
    for (const pair of pairs) {
      for (const file of [pair.truth, pair.prediction]) {
        for (const value of (await readLabels(file)).map) if (value !== 0) found.add(value);
      }
    }
    return { labels: [...found].sort((a, b) => a - b), source: "the values in the files" };
  }
  let ignore: number | undefined;
  for (const [key, value] of Object.entries((json.labels ?? {}) as Record<string, unknown>)) {
    // The Medical Segmentation Decathlon writes {"1": "name"}.
    const values = typeof value === "string" ? [Number(key)] : [value].flat();
    for (const label of values) {
      if (typeof label !== "number" || !Number.isInteger(label) || label < 0 || label > 65535) {
        throw new UserError(
          `${path}: labels.${key} is ${JSON.stringify(value)}; it must be a whole number from 0 to 65535`,
        );
      }
      if (key === "ignore") ignore = label;
      else if (label > 0) found.add(label);
    }
  }
  if (found.size === 0) {
    throw new UserError(`${path}: "labels" names no label above 0; add them or remove the file`);
  }
  const name = typeof json.name === "string" ? json.name : undefined;
  return { labels: [...found].sort((a, b) => a - b), ignore, name, source: path };
}

/** A label map [z, y, x] and its geometry. @throws UserError for channels and values that are no labels */
export async function readLabels(path: string): Promise<{ map: Uint16Array; volume: Volume }> {
  const volume = await readNifti(await Deno.readFile(path), path);
  if (volume.channels > 1) {
    throw new UserError(
      `${path}: the file has ${volume.channels} channels; a label map has one, give labels and not probabilities`,
    );
  }
  const map = new Uint16Array(volume.data.length);
  volume.data.forEach((value, i) => {
    map[i] = value;
    if (map[i] !== value) {
      throw new UserError(
        `${path}: voxel value ${value} is no label; labels are whole numbers from 0 to 65535`,
      );
    }
  });
  return { map, volume };
}

/** Scores one case; rows label by label, `metrics` in their order. `tolerance` of NSD in mm. */
export async function scoreCase(
  pair: Pair,
  { labels, ignore, source }: Labels,
  metrics: Row["metric"][],
  tolerance: number,
  origin: Origin,
): Promise<Row[]> {
  const truth = await readLabels(pair.truth);
  const prediction = await readLabels(pair.prediction);
  sameGrid(pair.prediction, prediction.volume, pair.truth, truth.volume);
  const known = new Set([0, ignore, ...labels]);
  const stranger = truth.map.find((value) => !known.has(value));
  if (stranger !== undefined) {
    throw new UserError(`${pair.truth}: label ${stranger} is not in ${source}; add it there`);
  }
  const odd = prediction.map.find((value) => !known.has(value));
  if (odd !== undefined) log(`${pair.prediction}: label ${odd} is not in ${source}; it counts as background`);
  if (ignore !== undefined) {
    const ignored = ignore;
    truth.map.forEach((value, i) => {
      if (value === ignored) truth.map[i] = prediction.map[i] = 0;
    });
  }
  const { shape, spacing } = truth.volume;
  const found = overlaps(truth.map, prediction.map, shape, labels);
  return labels.flatMap((label, i) =>
    metrics.map((metric) => {
      const value = metric === "DSC"
        ? dice(found[i])
        : nsd(truth.map, prediction.map, shape, label, found[i], spacing, tolerance);
      return { ...origin, case: pair.case, metric, label, value };
    })
  );
}

/** `name` in the folder `path`, or `path` itself where it is a CSV file; undefined where there is none. */
async function table(path: string, name: string): Promise<string | undefined> {
  const file = path.endsWith(".csv") ? path : join(path, name);
  try {
    return (await Deno.stat(file)).isFile ? file : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}

/** predictions.csv of an image task among the predictions, if that is what they are. */
export function imagePredictions(predictions: string): Promise<string | undefined> {
  return table(predictions, "predictions.csv");
}

/**
 * Scores predictions.csv against labels.csv.
 * @param truth labels.csv, or the folder (a dataset) that holds it
 * @returns metrics over the predicted cases, and the cases of the truth that have no prediction
 * @throws UserError for a prediction without truth, and for a true class that has no column
 */
export async function scoreImages(
  predictions: string,
  truth: string,
): Promise<{ metrics: Record<string, number | null>; cases: number; unpredicted: string[]; task: string }> {
  const { task, labels, cases } = readPredictions(predictions);
  const file = await table(truth, "labels.csv");
  if (!file) {
    throw new UserError(
      `${truth}: there is no labels.csv; ${predictions} needs a file of lines case,label as its truth`,
    );
  }
  const targets = readTargets(file, task);
  const known = [...cases.keys()].map((id) => {
    const target = targets.get(id);
    if (target === undefined) {
      throw new UserError(
        `${predictions}: ${file} holds no truth for case "${id}"; add it or remove the prediction`,
      );
    }
    if (labels.length && !labels.includes(target)) {
      throw new UserError(
        `${file}: case "${id}" is of class ${target}, for which ${predictions} has no column p_${target}`,
      );
    }
    return target;
  });
  const unpredicted = [...targets.keys()].filter((id) => !cases.has(id));
  return { metrics: imageMetrics(labels, [...cases.values()], known), cases: cases.size, unpredicted, task };
}
