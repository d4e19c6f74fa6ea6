/**
 * checkpoint/ of a folder: {weights,optimizer}.safetensors and state.json. It is written beside the old one and renamed,
 * so that a kill at any moment leaves a whole one.
 */
import { join } from "@std/path";
import { decode, writeFile } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Tensor } from "../tensor.ts";

/** Whether there is such a file or folder. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The object in a file. @throws UserError for a damaged file */
// deno-lint-ignore no-explicit-any
export async function readJson(path: string): Promise<Record<string, any>> {
  const text = await Deno.readTextFile(path);
  try {
    return JSON.parse(text);
  } catch {
    throw new UserError(`${path}: this is no whole JSON file; restore it or choose another -o`);
  }
}

/** Writes a file under `<path>.partial`, then renames it. */
export async function writeWhole(path: string, bytes: Uint8Array | string): Promise<void> {
  const partial = `${path}.partial`;
  try {
    if (typeof bytes === "string") await Deno.writeTextFile(partial, bytes);
    else await Deno.writeFile(partial, bytes);
    await Deno.rename(partial, path);
  } catch (error) {
    await Deno.remove(partial).catch(() => {});
    throw error;
  }
}

/** Step of the checkpoint in `folder`, undefined without; what a kill left half done is put right. */
export async function findCheckpoint(folder: string): Promise<number | undefined> {
  const checkpoint = join(folder, "checkpoint");
  if (!await exists(checkpoint) && await exists(`${checkpoint}.old`)) {
    await Deno.rename(`${checkpoint}.old`, checkpoint);
  }
  for (const rest of [`${checkpoint}.old`, `${checkpoint}.partial`]) {
    if (await exists(rest)) await Deno.remove(rest, { recursive: true });
  }
  return await exists(checkpoint) ? (await readJson(join(checkpoint, "state.json"))).step : undefined;
}

/** Writes weights.safetensors of a folder, whole. `config` goes into its metadata; `about` is the file that explains it. */
export function saveWeights(file: string, parameters: Parameters, config: unknown, about: string): void {
  const metadata = {
    config: JSON.stringify(config),
    licence: "as the training data allow",
    citation: `see ${about}`,
  };
  const weights = [...parameters.tensors].map(([name, t]) =>
    [name, source(parameters.shapes.get(name)!, t)] as const
  );
  writeFile(file, new Map(weights), metadata);
}

const source = (shape: number[], t: Tensor) => ({ shape, read: (into: Float32Array) => t.read(into) });

/** Writes the checkpoint of `step` as one. `state`: what a resumed run needs beside the weights. */
export async function saveCheckpoint(
  folder: string,
  config: unknown,
  about: string,
  step: number,
  parameters: Parameters,
  state: Map<string, Tensor>,
): Promise<void> {
  const partial = join(folder, "checkpoint.partial");
  const target = join(folder, "checkpoint");
  await Deno.mkdir(partial, { recursive: true });
  try {
    saveWeights(join(partial, "weights.safetensors"), parameters, config, about);
    const rest = [...state].map(([name, t]) => [name, source([t.length], t)] as const);
    writeFile(join(partial, "optimizer.safetensors"), new Map(rest));
    await Deno.writeTextFile(join(partial, "state.json"), JSON.stringify({ step }) + "\n");
  } catch (error) {
    await Deno.remove(partial, { recursive: true });
    throw error;
  }
  const old = await exists(target);
  if (old) await Deno.rename(target, `${target}.old`);
  await Deno.rename(partial, target);
  if (old) await Deno.remove(`${target}.old`, { recursive: true });
}

/** Loads the checkpoint into parameters and state. @throws UserError naming what is missing or damaged */
export async function loadCheckpoint(
  folder: string,
  parameters: Parameters,
  state: Map<string, Tensor>,
): Promise<void> {
  const weights = join(folder, "checkpoint", "weights.safetensors");
  const optimizer = join(folder, "checkpoint", "optimizer.safetensors");
  const loaded = parameters.load(decode(await Deno.readFile(weights), weights).tensors, weights);
  const rest = decode(await Deno.readFile(optimizer), optimizer).tensors;
  for (const [name, tensor] of state) {
    const found = rest.get(name);
    if (!found || found.data.length !== tensor.length) {
      throw new UserError(`${optimizer}: ${name} is missing; the checkpoint is damaged`);
    }
    tensor.write(found.data);
  }
  if (loaded.length !== parameters.tensors.size) {
    throw new UserError(
      `${weights}: ${parameters.tensors.size - loaded.length} tensors of this network are missing`,
    );
  }
}

/** Refuses to go on with another configuration. @throws UserError naming the first key that differs, and both values */
export function checkSame(
  file: string,
  before: Record<string, unknown>,
  now: Record<string, unknown>,
  defaults: Record<string, unknown> = {},
): void {
  for (const key of Object.keys(now)) {
    const there = before[key] ?? defaults[key];
    if (JSON.stringify(there) === JSON.stringify(now[key])) continue;
    throw new UserError(
      `${file}: ${key} is ${JSON.stringify(there)} there and ${JSON.stringify(now[key])} here; ` +
        `resume with the same configuration or choose another -o`,
    );
  }
}
