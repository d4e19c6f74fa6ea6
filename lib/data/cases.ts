/**
 * nnU-Net raw datasets: dataset.json, imagesTr/CASE_0000.nii.gz (one file per channel), labelsTr/CASE.nii.gz; and the
 * preparation that training and prediction share: RAS, z-score over the whole image per channel, voxels of 1 mm.
 */
import { basename, join } from "@std/path";
import { UserError } from "../errors.ts";
import type { Side } from "../tensor.ts";
import { gunzip, isGzip } from "./gzip.ts";
import { parseHeader, readNifti, type Volume } from "./nifti.ts";
import { type ImageTask, readTargets } from "./targets.ts";
import { isotropic, resample, resampleLabels, type Turn, turn, turned, turnOf } from "./regrid.ts";

/** What dataset.json says, and the labelled cases found. */
export interface Dataset {
  folder: string;
  name: string;
  channels: string[];
  /**
   * Label values, in a segmentation background first: class k of the network is `labels[k]`. Empty in a regression.
   */
  labels: number[];
  labelNames: string[];
  /** Names of the cases with image and label, sorted. */
  cases: string[];
  /** What labels.csv says of each case: image tasks have it. */
  targets?: Map<string, number>;
  ending: string;
}

/** A case on the grid of the network, and the way back to its file. */
export interface Case {
  id: string;
  /** Voxels z, y, x of `image` and `target`: RAS, 1 mm. */
  shape: Side;
  /** `[z][y][x][channel]`. */
  image: Float32Array;
  /** Classes on the grid of the network. */
  target?: Uint8Array;
  /** Classes on the grid of the file. */
  truth?: Uint8Array;
  /** The first channel's file: grid, header. */
  file: { shape: Side; turn: Turn; header: Uint8Array; affine: number[][] };
}

const text = (value: unknown) => JSON.stringify(value);

/** Files of a folder that `ending` ends, sorted. @throws UserError when there is no such folder */
function list(folder: string, ending: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map((e) => e.name).filter((n) =>
      n.endsWith(ending) && !n.startsWith(".")
    )
      .sort();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UserError(
      `${folder}: there is no such folder; an nnU-Net raw dataset has imagesTr, labelsTr and dataset.json`,
    );
  }
}

/** dataset.json of a folder, its channels and file ending. @throws UserError naming the field */
// deno-lint-ignore no-explicit-any
function readAbout(file: string): { json: any; channels: string[]; ending: string } {
  // deno-lint-ignore no-explicit-any
  let json: any;
  try {
    json = JSON.parse(Deno.readTextFileSync(file));
  } catch (error) {
    if (error instanceof SyntaxError) throw new UserError(`${file}: it is not JSON (${error.message})`);
    if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory)) throw error;
    throw new UserError(`${file}: there is no such file; give the folder of an nnU-Net raw dataset`);
  }
  const named = json.channel_names ?? json.modality;
  if (!named || typeof named !== "object" || Object.keys(named).length === 0) {
    throw new UserError(`${file}: channel_names is ${text(named)}; it must be like {"0": "T1w"}`);
  }
  const ending = json.file_ending ?? ".nii.gz";
  if (ending !== ".nii.gz" && ending !== ".nii") {
    throw new UserError(`${file}: file_ending is ${text(ending)}; ".nii.gz" and ".nii" are read`);
  }
  const channels = Object.keys(named).sort((a, b) => Number(a) - Number(b)).map((key) => String(named[key]));
  return { json, channels, ending };
}

/** Names and values of the labels of dataset.json, by value. @throws UserError unless they are background 0 and others */
function segmentationLabels(file: string, labels: unknown): [string, number][] {
  const entries = Object.entries(labels ?? {});
  const odd = entries.find(([, value]) => !Number.isInteger(value) || value < 0 || value > 255);
  if (odd) {
    throw new UserError(
      `${file}: label "${odd[0]}" is ${
        text(odd[1])
      }; labels are whole numbers from 0 to 255 (regions are not offered)`,
    );
  }
  const sorted = (entries as [string, number][]).sort((a, b) => a[1] - b[1]);
  if (sorted.length < 2 || sorted[0][1] !== 0 || new Set(sorted.map((e) => e[1])).size < sorted.length) {
    throw new UserError(
      `${file}: labels are ${text(labels)}; they need "background": 0 and other values once each`,
    );
  }
  return sorted;
}

/**
 * Opens an nnU-Net raw dataset: labels of a segmentation are in labelsTr and dataset.json, of an image task in labels.csv.
 * @throws UserError naming the field of dataset.json, the line of labels.csv, or the file that a case lacks
 */
export function openDataset(folder: string, task: "segmentation" | ImageTask = "segmentation"): Dataset {
  const file = join(folder, "dataset.json");
  const { json, channels, ending } = readAbout(file);
  const about = { folder, name: String(json.name ?? basename(folder)), channels, ending };
  const found = (part: string) =>
    list(join(folder, part), ending).map((name) => name.slice(0, -ending.length));
  let dataset: Dataset;
  let source: string;
  if (task === "segmentation") {
    const labels = segmentationLabels(file, json.labels);
    source = join(folder, "labelsTr");
    const cases = found("labelsTr");
    if (cases.length === 0) throw new UserError(`${source}: there is no label file that ends in ${ending}`);
    dataset = { ...about, cases, labels: labels.map((e) => e[1]), labelNames: labels.map((e) => e[0]) };
  } else {
    source = join(folder, "labels.csv");
    const targets = readTargets(source, task);
    const labels = task === "regression" ? [] : [...new Set(targets.values())].sort((a, b) => a - b);
    if (labels.length === 1) {
      throw new UserError(`${source}: every label is ${labels[0]}; a classification needs two classes`);
    }
    dataset = {
      ...about,
      cases: [...targets.keys()].sort(),
      labels,
      labelNames: labels.map(String),
      targets,
    };
  }
  const images = new Set(found("imagesTr"));
  for (const id of dataset.cases) {
    const missing = channels.map((_, c) => `${id}_${String(c).padStart(4, "0")}`).find((name) =>
      !images.has(name)
    );
    if (missing) {
      throw new UserError(
        `${
          join(folder, "imagesTr", missing + ending)
        }: the file is missing, while ${source} has ${id}; add it or remove the label`,
      );
    }
  }
  return dataset;
}

/** Image files of a case, in channel order, and its label file. */
export function filesOf(dataset: Dataset, id: string): { images: string[]; label: string } {
  const { folder, ending } = dataset;
  return {
    images: dataset.channels.map((_, c) =>
      join(folder, "imagesTr", `${id}_${String(c).padStart(4, "0")}${ending}`)
    ),
    label: join(folder, "labelsTr", `${id}${ending}`),
  };
}

async function read(path: string): Promise<Volume> {
  const volume = await readNifti(await Deno.readFile(path), path);
  if (volume.channels > 1) {
    throw new UserError(
      `${path}: it holds ${volume.channels} volumes; give one file per channel (CASE_0000, CASE_0001 ...)`,
    );
  }
  return volume;
}

/** @throws UserError when the two files do not lie on one grid (1 % of a voxel) */
function sameGrid(a: Volume, b: Volume, fileA: string, fileB: string): void {
  if (a.shape.some((n, i) => n !== b.shape[i])) {
    throw new UserError(
      `${fileA} and ${fileB}: the shapes ${a.shape.join("x")} and ${
        b.shape.join("x")
      } (z, y, x) differ; they must lie on one grid`,
    );
  }
  const tolerance = 0.01 * Math.min(...a.spacing);
  const [z, y, x] = a.shape;
  // The same affine to within a hundredth of a voxel anywhere in the volume.
  const far = [0, 1, 2].some((r) => {
    const d = a.affine[r].map((v, c) => Math.abs(v - b.affine[r][c]));
    return d[0] * x + d[1] * y + d[2] * z + d[3] > Math.max(tolerance, 1e-3) * 2;
  });
  if (far) throw new UserError(`${fileA} and ${fileB}: the affines differ; they must lie on one grid`);
}

/** Values of a label file as classes. @throws UserError naming the first value that is no label */
function classes(data: Float32Array, labels: number[], file: string): Uint8Array {
  const of = new Map(labels.map((value, k) => [value, k]));
  return Uint8Array.from(data, (value) => {
    const k = of.get(value);
    if (k === undefined) {
      throw new UserError(
        `${file}: it holds the value ${value}, which dataset.json does not list (${labels.join(", ")})`,
      );
    }
    return k;
  });
}

/** In place: (x - mean) / standard deviation over all voxels; a constant image becomes 0. */
function zscore(data: Float32Array): void {
  let [sum, square] = [0, 0];
  for (const v of data) sum += v;
  const mean = sum / data.length;
  for (const v of data) square += (v - mean) ** 2;
  const factor = 1 / Math.max(Math.sqrt(square / data.length), 1e-8);
  for (let i = 0; i < data.length; i++) data[i] = (data[i] - mean) * factor;
}

/**
 * Reads and prepares a case.
 * @param images one file per channel; `label` and its values, if known
 * @throws UserError naming the file (both when two grids differ)
 */
export async function readCase(
  id: string,
  images: string[],
  label?: { file: string; labels: number[] },
): Promise<Case> {
  const volumes: Volume[] = [];
  for (const path of images) {
    const volume = await read(path);
    if (volumes.length) sameGrid(volumes[0], volume, images[0], path);
    zscore(volume.data);
    volumes.push(volume);
  }
  const [first] = volumes;
  const channels = volumes.length;
  const how = turnOf(first.affine);
  const inRas = turned(first.shape, how);
  const shape = isotropic(inRas, turned(first.spacing, how));
  const stacked = new Float32Array(first.data.length * channels);
  volumes.forEach(({ data }, c) => data.forEach((v, i) => stacked[i * channels + c] = v));
  const image = resample(turn(stacked, first.shape, channels, how), inRas, shape, channels);
  const file = { shape: first.shape, turn: how, header: first.header, affine: first.affine };
  if (!label) return { id, shape, image, file };
  const drawn = await read(label.file);
  sameGrid(first, drawn, images[0], label.file);
  const truth = classes(drawn.data, label.labels, label.file);
  const target = resampleLabels(turn(truth, first.shape, 1, how), inRas, shape);
  return { id, shape, image, target, truth, file };
}

/** Logits `[z][y][x][k]` on the grid of the network, brought back to the grid of the file. */
export function toFile(logits: Float32Array, { shape, file }: Case, k: number): Float32Array {
  return turn(resample(logits, shape, turned(file.shape, file.turn), k), file.shape, k, file.turn, true);
}

/** Shape that a file will have on the grid of the network, from its first bytes. */
export async function gridOf(path: string): Promise<Side> {
  const file = await Deno.open(path);
  try {
    const bytes = new Uint8Array(8192);
    const head = bytes.subarray(0, await file.read(bytes) ?? 0);
    const header = parseHeader(isGzip(head) ? gunzip(head, path, 2 ** 24, true) : head, path);
    const how = turnOf(header.affine);
    return isotropic(turned(header.shape, how), turned(header.spacing, how));
  } finally {
    file.close();
  }
}
