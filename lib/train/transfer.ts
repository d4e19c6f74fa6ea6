/** From a pretraining run to a network for a task: the encoder by name, the rest new. */
import { join } from "@std/path";
import { log } from "../config.ts";
import { decode } from "../data/safetensors.ts";
import { type Recipe, RECIPES } from "../data/volume.ts";
import { UserError } from "../errors.ts";
import type { ModelInfo } from "../eval/model.ts";
import { readJson } from "../files.ts";
import type { Architecture } from "../nn/network.ts";
import type { Parameters, Values } from "../nn/parameters.ts";
import { resizePositions } from "../nn/positions.ts";
import { type Side, volume } from "../tensor.ts";
import { readRunFile } from "./checkpoint.ts";
import type { RunConfig } from "./run_folder.ts";

/** What a run folder (or a folder of imported weights) offers for fine-tuning. */
export interface Pretrained {
  /** The weights file. */
  file: string;
  weights: Map<string, Values>;
  method?: string;
  arch?: string;
  patch?: [number, number, number];
  /** How its volumes were prepared, where the run says so. */
  recipe?: Recipe;
}

async function readable(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** Method, network, patch and recipe that run.json of a folder names, where there is one. */
export async function aboutRun(folder: string): Promise<Partial<RunConfig & ModelInfo>> {
  if (await readable(folder)) {
    throw new UserError(
      `--from ${folder}: this is a file, a folder is needed: convert it with deno task weights import ${folder} -o RUN`,
    );
  }
  const file = join(folder, "run.json");
  return await readable(file) ? (await readRunFile(file))?.config ?? {} : {};
}

/** Reads a run folder: checkpoint/weights.safetensors of a run, else weights.safetensors. @throws UserError without */
export async function readRun(folder: string): Promise<Pretrained> {
  const known = await aboutRun(folder);
  const candidates = [join(folder, "checkpoint", "weights.safetensors"), join(folder, "weights.safetensors")];
  const found = await Promise.all(candidates.map(readable));
  const file = candidates[found.indexOf(true)];
  if (!file) {
    throw new UserError(
      `${candidates[0]}: there is no such file; --from needs the folder of a pretraining run`,
    );
  }
  const { tensors, metadata } = decode(await Deno.readFile(file), file);
  const about = join(folder, "run.json");
  let config = known;
  try {
    if (!await readable(about)) config = JSON.parse(metadata.config ?? "{}");
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new UserError(`${file}: its config is no JSON (${error.message})`);
    }
    throw error;
  }
  const state = join(folder, "checkpoint", "state.json");
  const step = await readable(state) ? (await readJson(state))?.step : undefined;
  const of = config.of ?? config.steps;
  if (step < (of ?? 0)) log(`${folder} is not finished: its weights are those of step ${step} of ${of}`);
  const { method, arch, patch, recipe } = config;
  if (recipe !== undefined && !RECIPES.includes(recipe)) {
    throw new UserError(`${about}: recipe is ${JSON.stringify(recipe)}; it must be ${RECIPES.join(" or ")}`);
  }
  return { file, weights: tensors, method, arch, patch, recipe };
}

/** The encoder's names. @throws UserError when the file lacks one of them, or belongs to another network */
function encoderNames(parameters: Parameters, from: Pretrained, arch: Architecture): string[] {
  const names = [...parameters.tensors.keys()].filter((name) =>
    arch.encoderPrefixes.some((prefix) => name.startsWith(prefix))
  );
  const missing = names.filter((name) => !from.weights.has(name));
  if (missing.length) {
    throw new UserError(
      `${from.file}${
        from.arch && from.arch !== arch.name ? ` holds weights of ${from.arch}` : ""
      }: ${missing.length} of the ${names.length} encoder tensors of ${arch.name} are missing, such as ${
        missing[0]
      }; choose the --arch of that run`,
    );
  }
  return names;
}

/**
 * Goes on from the weights of a run: every tensor of the same name, but those that the method starts fresh.
 * @param fresh prefixes of names
 * @returns the names loaded
 * @throws UserError, before anything is loaded, for weights of another network
 */
export function continueFrom(
  parameters: Parameters,
  from: Pretrained,
  arch: Architecture,
  fresh: readonly string[] = [],
): string[] {
  encoderNames(parameters, from, arch);
  const wanted = (name: string) => from.weights.has(name) && !fresh.some((prefix) => name.startsWith(prefix));
  for (const [name, shape] of parameters.shapes) {
    const found = from.weights.get(name);
    if (!found || !wanted(name) || found.shape.join() === shape.join()) continue;
    throw new UserError(
      `${from.file}${
        from.arch ? ` (${from.arch}, patch ${from.patch?.join("x")})` : ""
      }: ${name} has shape [${found.shape}], ${arch.name} needs [${shape}]; choose the --arch and --patch of that run`,
    );
  }
  return parameters.load(from.weights, from.file, wanted);
}

/** SHA-256 of a file. */
export async function fingerprint(file: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(file))).toHex();
}

/**
 * Loads every encoder tensor. A stem made for one channel serves C channels: its weight is repeated and divided by C,
 * so that C equal channels give what one gave (S3D section 3.3). A position table of another patch is interpolated.
 * @param patch of the network that `parameters` belongs to
 * @returns the names loaded
 * @throws UserError when a tensor of the encoder is missing or has another shape
 */
export function transferEncoder(
  parameters: Parameters,
  from: Pretrained,
  arch: Architecture,
  patch?: Side,
): string[] {
  const names = encoderNames(parameters, from, arch);
  const values = new Map(names.map((name) => {
    const found = from.weights.get(name)!;
    const shape = parameters.shapes.get(name)!;
    const before = from.patch;
    if (name.endsWith(".pos_embed") && before && patch && before.join() !== patch.join()) {
      const [old, wanted] = [[before, found.shape], [patch, shape]].map(([sides, [, tokens]]) => {
        const token = Math.cbrt(volume(sides as unknown as Side) / tokens);
        return sides.map((s) => Math.round(s / token)) as unknown as Side;
      });
      return [name, { shape, data: resizePositions(found.data, old, wanted) }];
    }
    const channels = shape[1];
    const repeat = shape.length === 5 && found.shape.length === 5 && found.shape[1] === 1 && channels > 1;
    if (!repeat) return [name, found];
    const kernel = found.data.length / found.shape[0];
    const data = new Float32Array(found.data.length * channels);
    for (let i = 0; i < data.length; i++) {
      data[i] = found.data[Math.floor(i / (kernel * channels)) * kernel + i % kernel] / channels;
    }
    return [name, { shape: [found.shape[0], channels, ...found.shape.slice(2)], data }];
  }));
  return parameters.load(values, from.file);
}
