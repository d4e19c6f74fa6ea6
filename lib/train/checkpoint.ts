/**
 * checkpoint/ of a folder: {weights,optimizer}.safetensors and state.json. It is written beside the old one and renamed,
 * so that a kill at any moment leaves a whole one.
 */
import { join } from "@std/path";
import { decode, writeFile } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import { exists, readJson } from "../files.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Tensor } from "../tensor.ts";

/** What run.json says. @throws UserError for a damaged one, or one of another format */
// deno-lint-ignore no-explicit-any
export async function readRunFile(file: string): Promise<Record<string, any> | null> {
  const json = await readJson(file);
  if (json?.format === undefined || json.format === 1) return json;
  throw new UserError(
    `${file}: format is ${JSON.stringify(json.format)}, this version reads 1; use the version that wrote it`,
  );
}

/**
 * Step of the checkpoint in `folder`, undefined without; what a kill left half done is put right.
 * @throws UserError when the checkpoint does not say its step
 */
export async function findCheckpoint(folder: string): Promise<number | undefined> {
  const checkpoint = join(folder, "checkpoint");
  if (!await exists(checkpoint) && await exists(`${checkpoint}.old`)) {
    await Deno.rename(`${checkpoint}.old`, checkpoint);
  }
  for (const rest of [`${checkpoint}.old`, `${checkpoint}.partial`]) {
    if (await exists(rest)) await Deno.remove(rest, { recursive: true });
  }
  if (!await exists(checkpoint)) return undefined;
  const file = join(checkpoint, "state.json");
  if (!await exists(file)) {
    throw new UserError(
      `${file}: there is no such file: imported weights (start from them with --from) or damage; choose another -o`,
    );
  }
  const step = (await readJson(file))?.step;
  if (Number.isInteger(step) && step >= 0) return step;
  throw new UserError(
    `${file}: step is ${
      JSON.stringify(step)
    }, not a whole number; the checkpoint is damaged, restore it or choose another -o`,
  );
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

/** Loads a weights file. @throws UserError unless it holds every parameter */
export async function loadWeights(file: string, parameters: Parameters): Promise<void> {
  const loaded = parameters.load(decode(await Deno.readFile(file), file).tensors, file);
  const missing = parameters.tensors.size - loaded.length;
  if (missing) throw new UserError(`${file}: ${missing} tensors of this network are missing`);
}

/** Loads the checkpoint into parameters and state. @throws UserError naming what is missing or damaged */
export async function loadCheckpoint(
  folder: string,
  parameters: Parameters,
  state: Map<string, Tensor>,
): Promise<void> {
  await loadWeights(join(folder, "checkpoint", "weights.safetensors"), parameters);
  const optimizer = join(folder, "checkpoint", "optimizer.safetensors");
  const rest = decode(await Deno.readFile(optimizer), optimizer).tensors;
  for (const [name, tensor] of state) {
    const found = rest.get(name);
    if (!found || found.data.length !== tensor.length) {
      throw new UserError(`${optimizer}: ${name} is missing; the checkpoint is damaged`);
    }
    tensor.write(found.data);
  }
}

/**
 * Refuses to go on with another configuration. @throws UserError naming the first key of either that differs, and both
 * values
 */
export function checkSame(
  file: string,
  before: Record<string, unknown>,
  now: Record<string, unknown>,
  defaults: Record<string, unknown> = {},
): void {
  const text = (of: Record<string, unknown>, key: string) =>
    JSON.stringify(of[key] ?? defaults[key]) ?? "not given";
  for (const key of Object.keys({ ...before, ...now })) {
    const [there, here] = [text(before, key), text(now, key)];
    if (there === here) continue;
    if (key === "data") {
      throw new UserError(
        `${file}: the run began with other volumes, or with a version that told them apart by id and shape alone ` +
          `(data is ${there} there and ${here} here); give it the store that it began with or choose another -o`,
      );
    }
    throw new UserError(
      `${file}: ${key} is ${there} there and ${here} here; ` +
        `resume with the same configuration or choose another -o`,
    );
  }
}
