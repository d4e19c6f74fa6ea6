/**
 * nnU-Net raw datasets: dataset.json, imagesTr/CASE_0000.nii.gz (one file per channel), labelsTr/CASE.nii.gz; and the
 * preparation that training and prediction share with pretraining: a recipe of `volume.ts`. The channels of a case are
 * cropped to one box, which holds the voxels that the recipe keeps of any; each is normalised by its values inside.
 */
import { basename, join } from "@std/path";
import { log } from "../config.ts";
import { explain, UserError } from "../errors.ts";
import type { Side } from "../tensor.ts";
import { gunzip, isGzip } from "./gzip.ts";
import { type Header, parseHeader, readNifti } from "./nifti.ts";
import {
  cut,
  isotropic,
  paste,
  resample,
  resampleLabels,
  sameGrid,
  sides,
  type Turn,
  turn,
  turned,
  turnOf,
  union,
} from "./regrid.ts";
import { type ImageTask, readTargets } from "./targets.ts";
import { type Box, NiftiFile, type Recipe } from "./volume.ts";

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
  /** Voxels z, y, x of `image` and `target`: the box in RAS, 1 mm. */
  shape: Side;
  /** `[z][y][x][channel]`. */
  image: Float32Array;
  /** Classes on the grid of the network. */
  target?: Uint8Array;
  /** Classes on the grid of the file. */
  truth?: Uint8Array;
  /** The first channel's file: grid, header; the box of its voxels in RAS that was kept. */
  file: { shape: Side; turn: Turn; header: Uint8Array; affine: number[][]; box: Box };
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

/**
 * Names and values of the labels of dataset.json, by value; the Medical Segmentation Decathlon's {"1": "name"} too.
 * @throws UserError unless they are background 0 and others
 */
function segmentationLabels(file: string, labels: unknown): [string, number][] {
  const entries = Object.entries(labels ?? {}).map(([key, value]): [string, unknown] =>
    typeof value === "string" ? [value, Number(key)] : [key, value]
  );
  if (entries.some(([name]) => name === "ignore")) {
    throw new UserError(
      `${file}: labels has "ignore", which training would learn as a structure; set its voxels to background or leave those cases out`,
    );
  }
  const odd = entries.find(([, value]) =>
    !(Number.isInteger(value) && Number(value) >= 0 && Number(value) < 256)
  );
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
  const labelled = new Set(dataset.cases);
  const rest = new Set(
    [...images].map((name) => name.replace(/_\d{4}$/, "")).filter((id) => !labelled.has(id)),
  );
  if (rest.size) {
    const [some, more] = [
      [...rest].slice(0, 5).join(", "),
      rest.size > 5 ? ` and ${rest.size - 5} more` : "",
    ];
    log(`${source}: no label for ${some}${more}; left out, ${labelled.size} cases are labelled`);
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

/** @throws UserError for a file of several volumes */
function single(channels: number, path: string): void {
  if (channels > 1) {
    throw new UserError(
      `${path}: it holds ${channels} volumes; give one file per channel (CASE_0000, CASE_0001 ...)`,
    );
  }
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

/** A file in native memory with its header. Free it with `using`. */
class Channel implements Disposable {
  private constructor(readonly path: string, readonly header: Header, private readonly file: NiftiFile) {}

  static async open(path: string): Promise<Channel> {
    const bytes = await Deno.readFile(path);
    const head = bytes.subarray(0, 8192);
    const header = parseHeader(isGzip(head) ? gunzip(head, path, 2 ** 24, true) : head, path);
    single(header.channels, path);
    return new Channel(path, header, await named(path, NiftiFile.decode(bytes)));
  }

  bounds(recipe: Recipe): Promise<Box | undefined> {
    return named(this.path, this.file.bounds(recipe));
  }

  values(recipe: Recipe, within?: Box): ReturnType<NiftiFile["values"]> {
    return named(this.path, this.file.values(recipe, within));
  }

  [Symbol.dispose](): void {
    this.file[Symbol.dispose]();
  }
}

/** What native code says of a file, with the file's name. */
function named<T>(path: string, work: Promise<T>): Promise<T> {
  return work.catch((error) => {
    throw new UserError(`${path}: ${explain(error).message}`);
  });
}

/** Opens the channels of a case, and finds the box of all. Undefined: none has a voxel to keep. */
async function openChannels(
  images: string[],
  recipe: Recipe,
  stack: DisposableStack,
): Promise<{ channels: Channel[]; box?: Box }> {
  const channels: Channel[] = [];
  for (const path of images) {
    const channel = stack.use(await Channel.open(path));
    if (channels.length) sameGrid(path, channel.header, images[0], channels[0].header);
    channels.push(channel);
  }
  const boxes = await Promise.all(channels.map((channel) => channel.bounds(recipe)));
  const found = boxes.filter((box) => box !== undefined);
  return { channels, box: found.length ? union(found) : undefined };
}

/**
 * Reads and prepares a case by a recipe.
 * @param images one file per channel; `label` and its values, if known
 * @throws UserError naming the file (both when two grids differ)
 */
export async function readCase(
  id: string,
  images: string[],
  recipe: Recipe,
  label?: { file: string; labels: number[] },
): Promise<Case> {
  using stack = new DisposableStack();
  const { channels, box: within } = await openChannels(images, recipe, stack);
  const [first] = channels;
  const prepared = await first.values(recipe, within);
  const { shape, box } = prepared;
  let image = prepared.values;
  if (channels.length > 1) {
    const [one, n] = [prepared.values, channels.length];
    image = new Float32Array(one.length * n);
    for (let c = 0; c < n; c++) {
      const values = c ? (await channels[c].values(recipe, box)).values : one;
      for (let i = 0; i < values.length; i++) image[i * n + c] = values[i];
    }
  }
  const { shape: inFile, affine, raw: header } = first.header;
  const how = turnOf(affine, prepared.affine);
  const file = { shape: inFile, turn: how, header, affine, box };
  if (!label) return { id, shape, image, file };
  const drawn = await readNifti(await Deno.readFile(label.file), label.file);
  single(drawn.channels, label.file);
  sameGrid(label.file, drawn, images[0], first.header);
  const truth = classes(drawn.data, label.labels, label.file);
  const kept = cut(turn(truth, inFile, 1, how), turned(inFile, how), box);
  return { id, shape, image, target: resampleLabels(kept, sides(box), shape), truth, file };
}

/** Logits `[z][y][x][k]` on the grid of the network, brought back to the grid of the file; outside the box, class 0. */
export function toFile(logits: Float32Array, { shape, file }: Case, k: number): Float32Array {
  const inBox = resample(logits, shape, sides(file.box), k);
  return turn(paste(inBox, turned(file.shape, file.turn), file.box, k), file.shape, k, file.turn, true);
}

/** Shape that a case will have on the grid of the network. @throws as `readCase` */
export async function gridOf(images: string[], recipe: Recipe): Promise<Side> {
  using stack = new DisposableStack();
  const { channels: [{ header }], box } = await openChannels(images, recipe, stack);
  const how = turnOf(header.affine);
  const whole: Box = { low: [0, 0, 0], high: turned(header.shape, how) };
  return isotropic(sides(box ?? whole), turned(header.spacing, how));
}
