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
  /** The value, or those of a region such as 1+2+3. */
  label: number | string;
  value: number | null;
}

/** A prediction and its truth on disk. */
export interface Pair {
  case: string;
  prediction: string;
  truth: string;
}

/** What is scored, the value to leave out of the score, the name of the data. */
export interface Labels {
  /** Values that count as one structure: a label, or the labels of a region. */
  structures: number[][];
  ignore?: number;
  name?: string;
  source: string;
}

const ENDING = /\.nii(\.gz)?$/;

/** `dataset.json` of a truth folder (or file): beside the folder. */
export function datasetPath(truth: string): string {
  return join(dirname(resolve(ENDING.test(truth) ? dirname(truth) : truth)), "dataset.json");
}

/** The label maps of a truth: `labelsTr` of a folder that is a dataset, else what was given. */
export async function truthFolder(path: string): Promise<string> {
  const inner = join(path, "labelsTr");
  const info = await Deno.stat(inner).catch((error) => {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  });
  return info?.isDirectory ? inner : path;
}

/**
 * What to say where a model is scored on its own training cases; undefined when it is not.
 * @param written prediction.json
 * @param name of the scored data, where it has one
 */
export function trainedOn(
  { train, dataset }: Record<string, unknown>,
  cases: string[],
  name: unknown,
): string | undefined {
  if (!Array.isArray(train) || (name !== undefined && dataset !== undefined && name !== dataset)) return;
  const seen = new Set(train);
  const count = cases.filter((id) => seen.has(id)).length;
  if (count) {
    return `the model was trained on ${count} of the ${cases.length} scored cases, so their scores are no estimate for ` +
      "new ones; the cases left out are scored in the model's validation.jsonl";
  }
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
 * What to score: the labels of `dataset.json` (names -> integers; lists of integers are regions, scored as the union of
 * their labels, as nnU-Net does; background 0 and `ignore` left out), else all values but 0 in the files.
 */
export async function findLabels(truth: string, pairs: Pair[]): Promise<Labels> {
  const path = datasetPath(truth);
  const json = await readJson(path);
  if (!json) {
    const found = new Set<number>();
    for (const pair of pairs) {
      for (const file of [pair.truth, pair.prediction]) {
        for (const value of (await readLabels(file)).map) if (value !== 0) found.add(value);
      }
    }
    return {
      structures: [...found].sort((a, b) => a - b).map((v) => [v]),
      source: "the values in the files",
    };
  }
  let ignore: number | undefined;
  const found = new Map<string, number[]>();
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
    }
    const structure = (values as number[]).filter((label) => label > 0).sort((a, b) => a - b);
    if (key !== "ignore" && structure.length) found.set(structure.join("+"), structure);
  }
  if (found.size === 0) {
    throw new UserError(`${path}: "labels" names no label above 0; add them or remove the file`);
  }
  const name = typeof json.name === "string" ? json.name : undefined;
  const structures = [...found.values()].sort((a, b) => {
    const i = a.findIndex((value, at) => value !== b[at]);
    return i < 0 ? a.length - b.length : a[i] - (b[i] ?? 0);
  });
  return { structures, ignore, name, source: path };
}

/** A label map [z, y, x] and its geometry. @throws UserError for channels and values that are no labels */
async function readLabels(path: string): Promise<{ map: Uint16Array; volume: Volume }> {
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
  { structures, ignore, source }: Labels,
  metrics: Row["metric"][],
  tolerance: number,
  origin: Origin,
): Promise<Row[]> {
  const truth = await readLabels(pair.truth);
  const prediction = await readLabels(pair.prediction);
  sameGrid(pair.prediction, prediction.volume, pair.truth, truth.volume);
  const known = new Set([0, ignore, ...structures.flat()]);
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
  const labels = structures.filter((values) => values.length === 1).flat();
  const found = overlaps(truth.map, prediction.map, shape, labels);
  return structures.flatMap((values) => {
    const whole = values.length > 1;
    const [a, b, value] = whole
      ? [union(truth.map, values), union(prediction.map, values), 1]
      : [truth.map, prediction.map, values[0]];
    const overlap = whole ? overlaps(a, b, shape, [1])[0] : found[labels.indexOf(value)];
    const score = (metric: Row["metric"]) =>
      metric === "DSC" ? dice(overlap) : nsd(a, b, shape, value, overlap, spacing, tolerance);
    const label = whole ? values.join("+") : value;
    return metrics.map((metric) => ({ ...origin, case: pair.case, metric, label, value: score(metric) }));
  });
}

/** 1 where a map has one of `values`. */
function union(map: Uint16Array, values: number[]): Uint16Array {
  const member = new Uint8Array(65536);
  for (const value of values) member[value] = 1;
  return map.map((value) => member[value]);
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
): Promise<{ metrics: Record<string, number | null>; cases: string[]; unpredicted: string[]; task: string }> {
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
  return {
    metrics: imageMetrics(labels, [...cases.values()], known),
    cases: [...cases.keys()],
    unpredicted,
    task,
  };
}
