/** Names of tensors: from what wrappers and aliases make of them to one name per tensor, and back. */
import type { Stored } from "./state_file.ts";

/** One name per tensor. */
export interface Canonical {
  tensors: Map<string, Stored>;
  /** Units whose `conv`/`norm` copy differs from the `all_modules` one, which trained (S3D; defect D04c). */
  stale: number;
}

/**
 * The canonical names of a state dict: prefixes of wrappers (`module.`, `_orig_mod.`, a leading `model.`, `encoder.` before
 * a whole token network) are stripped; `decoder.encoder.*` is dropped; of `conv`/`norm` and `all_modules.0/1` the latter is
 * taken, the only one that trains in S3D; buffers that the network computes itself are dropped.
 */
export function canonical(raw: ReadonlyMap<string, Stored>): Canonical {
  const wrapped = [...raw.keys()].every((name) => name.startsWith("model."));
  const tokens = [...raw.keys()].some((name) => name.startsWith("encoder.eva."));
  const tensors = new Map<string, Stored>();
  const modules = new Map<string, Stored>();
  for (const [name, tensor] of raw) {
    let clean = (wrapped ? name.slice("model.".length) : name).split(".")
      .filter((part) => part !== "module" && part !== "_orig_mod").join(".");
    if (tokens) {
      clean = clean.replace(/^encoder\.(?=eva\.|down_projection\.|up_projection\.|decoder\.|mask_token)/, "");
    }
    if (clean.startsWith("decoder.encoder.") || clean.endsWith(".relative_position_index")) continue;
    const unit = clean.match(/^(.*)\.all_modules\.(\d+)\.(\w+)$/);
    if (unit) modules.set(`${unit[1]}.${unit[2] === "0" ? "conv" : "norm"}.${unit[3]}`, tensor);
    else tensors.set(clean, tensor);
  }
  const stale = new Set<string>();
  for (const [name, tensor] of modules) {
    const copy = tensors.get(name);
    if (copy && copy.place !== tensor.place && differ(copy, tensor)) {
      stale.add(name.replace(/\.\w+\.\w+$/, ""));
    }
    tensors.set(name, tensor);
  }
  return { tensors, stale: stale.size };
}

function differ(a: Stored, b: Stored): boolean {
  const [x, y] = [a.read(), b.read()];
  return x.length !== y.length || x.some((v, i) => !Object.is(v, y[i]));
}

/**
 * The names that the published networks have for canonical ones, as [name, canonical name]. ResEnc has aliases, in the order
 * of its construction: 956 names of 264 tensors for resenc-l. Others have none.
 */
export function publishedNames(names: Iterable<string>): [string, string][] {
  const all = [...names];
  if (!all.includes("encoder.stem.convs.0.conv.weight")) return all.map((name) => [name, name]);
  const units = new Map<string, string[]>();
  for (const name of all) {
    const unit = name.match(/^(.*)\.(conv|norm)\.\w+$/)?.[1] ?? name;
    units.set(unit, [...units.get(unit) ?? [], name]);
  }
  const encoder: [string, string][] = [];
  const decoder: [string, string][] = [];
  for (const [unit, members] of units) {
    const to = members[0].startsWith("encoder.") ? encoder : decoder;
    for (const name of members) to.push([name, name]);
    if (members[0] === unit) continue;
    for (const name of members) {
      to.push([
        name.replace(/\.(conv|norm)\.(\w+)$/, (_, part, kind) => {
          return `.all_modules.${part === "conv" ? 0 : 1}.${kind}`;
        }),
        name,
      ]);
    }
  }
  const parts = ["stages", "transpconvs", "seg_layers"];
  decoder.sort(([a], [b]) => parts.indexOf(a.split(".")[1]) - parts.indexOf(b.split(".")[1]));
  const again = encoder.map(([name, of]): [string, string] => [`decoder.${name}`, of]);
  return [...encoder, ...again, ...decoder];
}

/** A layer of a projector or predictor of CVA, whose published position counts norms and activations: 0, 3, 6. */
const HEAD = /^((?:\w+_)?(?:projector|predictor))\.(\d+)\.(\w+)$/;

/** The published name of a layer of a head; any other name as it is. */
export function publishedHead(name: string): string {
  return name.replace(HEAD, (_, head, layer, kind) => `${head}.${3 * Number(layer)}.${kind}`);
}

/**
 * Renames the layers of heads from their published positions to ours (0, 1, 2), in place. Parameters of the norms between
 * them (CVA on Primus) are dropped: ours have none.
 * @returns the names that were dropped
 */
export function ownHeads(tensors: Map<string, Stored>): string[] {
  const found = [...tensors.keys()].flatMap((name) => {
    const [, head, layer, kind] = name.match(HEAD) ?? [];
    return head ? [{ name, head, layer: Number(layer), kind }] : [];
  });
  const ours = found.some(({ name, layer, kind }) =>
    layer % 3 && kind === "weight" && tensors.get(name)!.shape.length === 2
  );
  const dropped: string[] = [];
  for (const { name, head, layer, kind } of ours ? [] : found) {
    const tensor = tensors.get(name)!;
    tensors.delete(name);
    if (layer % 3) dropped.push(name);
    else tensors.set(`${head}.${layer / 3}.${kind}`, tensor);
  }
  return dropped;
}
