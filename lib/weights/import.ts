/** Weights of others -> run folder: `finetune --from` and `pretrain --from` take it like a run of ours. */
import { basename, join } from "@std/path";
import { type Source, writeFile } from "../data/safetensors.ts";
import { type Recipe, RECIPES } from "../data/volume.ts";
import { UserError } from "../errors.ts";
import type { Architecture } from "../nn/network.ts";
import { bestFit, type Fit } from "./fit.ts";
import { canonical, ownHeads } from "./names.ts";
import { openState, type StateFile, type Stored } from "./state_file.ts";
import { swapTokenOrder, type TokenOrder } from "./token_order.ts";

/** Least share of an encoder's tensors that a file must hold. */
const LEAST = 0.9;

/** What was imported. */
export interface Imported {
  run: string;
  weights: string;
  arch: string;
  /** Tensors of the network in the file, absent from it, and in it with another shape. */
  matched: number;
  missing: string[];
  mismatched: { name: string; file: number[]; network: number[] }[];
  encoder: { matched: number; total: number };
  /** Further tensors that were kept (heads, mask tokens). */
  extra: number;
  /** Parameters of norms in projectors, which ours do not have: left out. */
  dropped: string[];
  /** Units whose `conv`/`norm` copy was stale, so that `all_modules` was taken (S3D, defect D04c). */
  stale: number;
  /** Order of the tokens in the file; the run's is d0d1d2. Networks on tokens only. */
  token_order?: TokenOrder;
}

/** How to import. */
export interface ImportOptions {
  /** The networks to choose from: one, or all. */
  candidates: readonly Architecture[];
  /** Order of the tokens, when the file does not tell it rightly. */
  tokenOrder?: TokenOrder;
}

// deno-lint-ignore no-explicit-any
const plain = (value: unknown): any =>
  value instanceof Map
    ? Object.fromEntries([...value].map(([key, inner]) => [key, plain(inner)]))
    : Array.isArray(value)
    ? value.map(plain)
    : value;

/** Token order by what a file says of itself; masked autoencoders of nnssl are the odd ones (D06). */
function tokenOrder({ about }: StateFile, names: string[]): TokenOrder {
  const has = (prefix: string) => names.some((name) => name.startsWith(prefix));
  const said = about.get("token_order");
  if (said === "d0d1d2" || said === "d1d0d2") return said;
  const initial = about.get("init_args");
  const nnunet = initial instanceof Map && initial.has("plans");
  const latentCampus = has("feature_decoder.") || has("attention_pooling.");
  if (nnunet || latentCampus || /simmim/i.test(String(about.get("trainer_name")))) return "d0d1d2";
  return has("decoder.blocks.") || about.has("nnssl_adaptation_plan") ? "d1d0d2" : "d0d1d2";
}

/** The config of a file of ours; empty in those of others. */
function ownConfig(about: StateFile["about"]): { patch?: number[]; recipe?: string } {
  try {
    return JSON.parse(String(about.get("config") ?? "{}"));
  } catch {
    return {};
  }
}

/** How the images were prepared that a file was trained on: only AMAES (with its `rec_head`) leaves [0, 1]. */
function recipeOf(about: StateFile["about"], names: Iterable<string>): Recipe | undefined {
  const { recipe } = ownConfig(about);
  const said = RECIPES.find((name) => name === recipe);
  return said ?? ([...names].some((name) => name.startsWith("rec_head.")) ? "amaes" : undefined);
}

/** The patch that a file of nnssl or of ours was trained on. */
function patchOf({ about }: StateFile): number[] | undefined {
  const plan = plain(about.get("nnssl_adaptation_plan")) ?? {};
  const [configuration] = Object.values(plan.pretrain_plan?.configurations ?? {}) as {
    patch_size?: number[];
  }[];
  const found = ownConfig(about).patch ?? plan.pretrain_patch_size ?? configuration?.patch_size ??
    plan.recommended_downstream_patchsize;
  return Array.isArray(found) && found.length === 3 && found.every(Number.isInteger) ? found : undefined;
}

/** Tokens are [C] here and [1, C, 1, 1, 1] in the files of S3D. */
function squeeze(name: string, tensor: Stored): Stored {
  return /^mask_tokens\.\d+$/.test(name)
    ? { ...tensor, shape: tensor.shape.filter((side) => side !== 1) }
    : tensor;
}

function refuse(file: string, { arch, encoder }: Fit, chosen: boolean): never {
  const share = Math.floor(100 * encoder.matched / encoder.total);
  throw new UserError(
    `${file}: ${encoder.matched} of the ${encoder.total} encoder tensors of ${arch.name} are in it (${share} %), ` +
      `${chosen ? "" : "and no other network fits better; "}90 % are needed: give ${
        chosen ? "the --arch that it was trained with" : "a file of one of our networks"
      }`,
  );
}

/**
 * Imports `file` (.pth or .safetensors) into the new run folder `out`, written as `<out>.partial` and renamed.
 * @throws UserError when the file is unsafe, damaged or of another network, or `out` is there already
 */
export async function importWeights(file: string, out: string, options: ImportOptions): Promise<Imported> {
  await vacant(out);
  using state = openState(file);
  const { tensors, stale } = canonical(state.tensors);
  for (const [name, tensor] of state.method) if (!tensors.has(name)) tensors.set(name, squeeze(name, tensor));
  const dropped = ownHeads(tensors);
  const hint = patchOf(state);
  const found = bestFit(options.candidates, tensors, hint);
  const patch = tensors.has("eva.pos_embed") ? [...found.patch] : hint;
  if (found.encoder.matched < LEAST * found.encoder.total) {
    refuse(file, found, options.candidates.length === 1);
  }
  const result: Imported = {
    run: out,
    weights: join(out, "checkpoint", "weights.safetensors"),
    arch: found.arch.name,
    matched: 0,
    missing: [],
    mismatched: [],
    encoder: found.encoder,
    extra: 0,
    dropped,
    stale,
  };
  for (const [name, shape] of found.shapes) {
    const tensor = tensors.get(name);
    if (!tensor) result.missing.push(name);
    else if (tensor.shape.join() === shape.join()) result.matched++;
    else {
      result.mismatched.push({ name, file: tensor.shape, network: shape });
      tensors.delete(name);
    }
  }
  result.extra = tensors.size - result.matched;
  const names = [...tensors.keys()];
  if (tensors.has("eva.pos_embed")) result.token_order = options.tokenOrder ?? tokenOrder(state, names);
  const sources = new Map(names.map((name): [string, Source] => {
    const { shape, read } = tensors.get(name)!;
    return [name, {
      shape,
      read: () => result.token_order === "d1d0d2" ? swapTokenOrder(name, shape, read()) : read(),
    }];
  }));
  await write(out, sources, state.about, result, patch, basename(file));
  return result;
}

/** @throws UserError when `out` is there and holds anything */
async function vacant(out: string): Promise<void> {
  try {
    for await (const _ of Deno.readDir(out)) {
      throw new UserError(`${out} holds files already; choose another -o`);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (!(error instanceof Deno.errors.NotADirectory)) throw error;
    throw new UserError(`${out} is a file; choose another -o`);
  }
}

async function write(
  out: string,
  sources: Map<string, Source>,
  about: StateFile["about"],
  result: Imported,
  patch: number[] | undefined,
  file: string,
): Promise<void> {
  const partial = `${out}.partial`;
  const text = (key: string) => {
    const value = about.get(key);
    return value === undefined || value === null ? undefined : JSON.stringify(plain(value));
  };
  const config = {
    method: "imported",
    arch: result.arch,
    patch,
    recipe: recipeOf(about, sources.keys()),
    ...(result.token_order ? { token_order: "d0d1d2" } : {}),
  };
  const licence = about.get("licence") ?? about.get("license");
  const metadata = {
    config: JSON.stringify(config),
    licence: typeof licence === "string" ? licence : "as the source of these weights states",
    citation: text("citation") ?? text("citations") ?? "as the source of these weights states",
    source: file,
  };
  try {
    await Deno.remove(partial, { recursive: true }).catch(() => {});
    await Deno.mkdir(join(partial, "checkpoint"), { recursive: true });
    const weights = join(partial, "checkpoint", "weights.safetensors");
    writeFile(weights, sources, metadata);
    // The same file under the name of a model folder, where the file system has links.
    await Deno.link(weights, join(partial, "weights.safetensors")).catch(() => {});
    const { run: _run, weights: _weights, ...report } = result;
    const origin = {
      file,
      trainer: about.get("trainer_name"),
      licence: metadata.licence,
      citation: metadata.citation,
    };
    const run = { config, imported: { ...origin, ...report }, deno: Deno.version.deno, format: 1 };
    await Deno.writeTextFile(join(partial, "run.json"), JSON.stringify(run, null, 2) + "\n");
    await Deno.rename(partial, out);
  } catch (error) {
    await Deno.remove(partial, { recursive: true }).catch(() => {});
    throw error;
  }
}
