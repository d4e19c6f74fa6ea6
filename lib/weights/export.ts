/** A run folder -> a file for others: safetensors, or a `.pth` with the published names. */
import { basename, join } from "@std/path";
import { architecture } from "../arch/registry.ts";
import { writeFile } from "../data/safetensors.ts";
import { UsageError, UserError } from "../errors.ts";
import type { Architecture } from "../nn/network.ts";
import { methods } from "../methods/registry.ts";
import { fit } from "./fit.ts";
import { publishedHead, publishedNames } from "./names.ts";
import { adaptationPlan } from "./plan.ts";
import { openState, type StateFile, type Stored } from "./state_file.ts";
import { swapTokenOrder, type TokenOrder } from "./token_order.ts";
import { type Saved, SavedTensor, type Storage, writeTorch } from "./torch_writer.ts";
import { relativePositionIndex, windowEdge } from "./window_index.ts";

/** What was exported. */
export interface Exported {
  file: string;
  arch: string;
  /** Names and distinct tensors of the network, tensors of the method, bytes of the file. */
  names: number;
  tensors: number;
  method_tensors: number;
  bytes: number;
}

/** What `run.json` and the weights say of themselves. */
interface About {
  arch: Architecture;
  // deno-lint-ignore no-explicit-any
  config: Record<string, any>;
  licence: string;
  citation: string;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** The weights file of a run or model folder. @throws UserError when it has none */
async function weightsOf(folder: string): Promise<string> {
  const paths = [join(folder, "checkpoint", "weights.safetensors"), join(folder, "weights.safetensors")];
  for (const path of paths) if (await isFile(path)) return path;
  throw new UserError(`${paths[0]}: there is no such file; name the folder of a run or of a model`);
}

async function aboutOf(
  folder: string,
  file: string,
  { about }: StateFile,
  chosen?: Architecture,
): Promise<About> {
  const run = join(folder, "run.json");
  // deno-lint-ignore no-explicit-any
  let config: Record<string, any>;
  try {
    const json = JSON.parse(
      await isFile(run) ? await Deno.readTextFile(run) : String(about.get("config") ?? "{}"),
    );
    config = json.config ?? json;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new UserError(`${run}: it is not JSON (${error.message}); restore it`);
  }
  if (!chosen && typeof config.arch !== "string") {
    throw new UserError(`${file}: nothing says which network it is; give --arch`);
  }
  const arch = chosen ?? architecture(config.arch);
  const method = methods.find((m) => m.name === config.method);
  const text = (key: string, general: string) => {
    const said = about.get(key);
    return typeof said === "string" && said !== "see run.json" ? said : general;
  };
  const citation = [method?.citation, arch.citation].filter(Boolean).join("; ");
  return {
    arch,
    config: { ...config, arch: arch.name },
    licence: text("licence", "as the training data allow"),
    citation: text("citation", citation),
  };
}

/** Exports the weights of folder `run` to `out` by its suffix. @throws UserError for a missing or damaged run */
export async function exportWeights(
  run: string,
  out: string,
  options: { arch?: Architecture; tokenOrder?: TokenOrder } = {},
): Promise<Exported> {
  const torch = /\.(pth|pt)$/.test(out);
  if (!torch && !out.endsWith(".safetensors")) {
    throw new UsageError(`-o ${out}: its name must end in .pth or .safetensors, which says what to write`);
  }
  const file = await weightsOf(run);
  using state = openState(file);
  const about = await aboutOf(run, file, state, options.arch);
  const { inputs, shapes, encoder, patch: built } = fit(about.arch, state.tensors, about.config.patch);
  if (encoder.matched < encoder.total) {
    throw new UserError(
      `${file}: ${
        encoder.total - encoder.matched
      } of the ${encoder.total} encoder tensors of ${about.arch.name} ` +
        `are missing; give the --arch that it was trained with`,
    );
  }
  const turn = options.tokenOrder === "d1d0d2";
  const tensors = new Map([...state.tensors].map(([name, tensor]): [string, Stored] => [name, {
    ...tensor,
    read: () => turn ? swapTokenOrder(name, tensor.shape, tensor.read()) : tensor.read(),
  }]));
  const patch: number[] = tensors.has("eva.pos_embed") ? [...built] : about.config.patch ?? [160, 160, 160];
  const width = tensors.get("eva.pos_embed")?.shape[2];
  // The plain networks on tokens keep an unused mask token of zeros, which a strict loader asks for.
  if (torch && width && !tensors.has("mask_token")) {
    tensors.set("mask_token", { shape: [1, 1, width], place: "", read: () => new Float32Array(width) });
  }
  const own = [...tensors.keys()].filter((name) => shapes.has(name) || name === "mask_token");
  const method = [...tensors.keys()].filter((name) => !own.includes(name));
  const order = tensors.has("eva.pos_embed") ? options.tokenOrder ?? "d0d1d2" : undefined;
  const names = publishedNames([...shapes.keys(), ...own.filter((name) => !shapes.has(name))])
    .filter(([, of]) => tensors.has(of));
  const metadata: Record<string, string> = {
    licence: about.licence,
    citation: about.citation,
    config: JSON.stringify(about.config),
    ...(order ? { token_order: order } : {}),
  };
  const partial = `${out}.partial`;
  let count = tensors.size;
  try {
    if (!torch) writeFile(out, tensors, metadata);
    else {
      count = writePth(
        partial,
        tensors,
        names,
        method,
        metadata,
        adaptationPlan(about.arch.name, inputs, patch),
      );
      await Deno.rename(partial, out);
    }
  } catch (error) {
    await Deno.remove(partial).catch(() => {});
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UserError(`-o ${out}: the folder for ${basename(out)} does not exist; make it first`);
  }
  return {
    file: out,
    arch: about.arch.name,
    names: count,
    tensors: own.length,
    method_tensors: method.length,
    bytes: (await Deno.stat(out)).size,
  };
}

/** `network_weights` with every alias and buffer, `method_weights` with tokens, projectors and the like, the plan, the
 * metadata as texts. Gives the number of names in `network_weights`. */
function writePth(
  path: string,
  tensors: Map<string, Stored>,
  names: [string, string][],
  method: string[],
  metadata: Record<string, string>,
  plan: Saved | undefined,
): number {
  const storages = new Map<string, Storage>();
  const keys = new Map<string, string>();
  const save = (name: string): SavedTensor => {
    const { shape, read } = tensors.get(name)!;
    if (!keys.has(name)) {
      keys.set(name, `${storages.size}`);
      storages.set(keys.get(name)!, { length: shape.reduce((a, b) => a * b, 1), read });
    }
    const token = /^mask_tokens\.\d+$/.test(name);
    return new SavedTensor(keys.get(name)!, token ? [1, ...shape, 1, 1, 1] : shape);
  };
  const network = new Map(names.map(([name, of]) => [name, save(of)]));
  for (const [name, { shape }] of [...network]) {
    if (!name.endsWith(".relative_position_bias_table")) continue;
    const edge = windowEdge(shape[0]);
    const key = `${storages.size}`;
    storages.set(key, { length: edge ** 6, whole: true, read: () => relativePositionIndex(edge) });
    network.set(name.replace(/bias_table$/, "index"), new SavedTensor(key, [edge ** 3, edge ** 3]));
  }
  const content = new Map<string, Saved>([
    ["network_weights", network],
    ...Object.entries(metadata),
  ]);
  if (method.length) {
    content.set("method_weights", new Map(method.map((name) => [publishedHead(name), save(name)])));
  }
  if (plan) content.set("nnssl_adaptation_plan", plan);
  const file = Deno.openSync(path, { create: true, write: true, truncate: true });
  try {
    writeTorch(file, content, storages);
  } finally {
    file.close();
  }
  return network.size;
}
