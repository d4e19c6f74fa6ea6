/** Which of our networks a set of named tensors belongs to. */
import type { Architecture, BuildOptions } from "../nn/network.ts";
import { Parameters } from "../nn/parameters.ts";
import { type Side, Tensor } from "../tensor.ts";

/** Named shapes. */
export type Shapes = ReadonlyMap<string, { readonly shape: readonly number[] }>;

/** Records what a network would be made of, and makes nothing. */
class Blueprint extends Parameters {
  protected override make(name: string, shape: number[]): Tensor {
    this.shapes.set(name, shape);
    return Object.create(Tensor.prototype); // has no values: using it throws
  }
}

/** How a network compares with a file. */
export interface Fit {
  arch: Architecture;
  /** Input channels. */
  inputs: number;
  /** Every tensor of the network, built as the file suggests. */
  shapes: Map<string, number[]>;
  /** The patch that it was built for: of the file where it has a position table. */
  patch: Side;
  /** Tensors of the encoder that the file holds in the right shape, and all of them. */
  encoder: { matched: number; total: number };
}

/** Sides of a token of the networks that have a position table. */
const TOKEN = 8;

/** The patch that a position table was made for: `hint` where it has as many tokens, else a cube. */
function patchOf(tensors: Shapes, arch: Architecture, hint?: readonly number[]): Side {
  const tokens = tensors.get("eva.pos_embed")?.shape[1];
  const of = (sides: readonly number[]) => sides.reduce((n, side) => n * side / TOKEN, 1);
  if (tokens && hint && of(hint) === tokens) return hint as unknown as Side;
  const side = tokens ? Math.round(Math.cbrt(tokens)) * TOKEN : 4 * arch.stride;
  return [side, side, side];
}

/** Names and shapes of a network in the order of its making. */
export function shapesOf(
  arch: Architecture,
  inputs: number,
  outputs: number,
  options: BuildOptions,
): Map<string, number[]> {
  const blueprint = new Blueprint(0);
  arch.build(blueprint, inputs, outputs, options);
  return blueprint.shapes;
}

/** The size in the file of the axis that is 1 in `one` and 2 in `two`: how many channels the file was made for. */
function channels(tensors: Shapes, one: Map<string, number[]>, two: Map<string, number[]>): number {
  for (const [name, shape] of one) {
    const axis = shape.findIndex((side, d) => side === 1 && two.get(name)?.[d] === 2);
    const found = axis < 0 ? undefined : tensors.get(name)?.shape[axis];
    if (found) return found;
  }
  return 1;
}

/**
 * Builds `arch` as the tensors suggest (decoder, input and output channels, patch) and compares the encoder.
 * @param hint the patch that the file names, if it does
 */
export function fit(arch: Architecture, tensors: Shapes, hint?: readonly number[]): Fit {
  const names = [...tensors.keys()];
  const has = (prefix: string) => names.some((name) => name.startsWith(prefix));
  const patch = patchOf(tensors, arch, hint);
  const options: BuildOptions = {
    patch,
    ...(has("decoder.blocks.") ? { hidden: "drop" as const } : {}),
    ...(has("feature_decoder.") ? { featureDecoder: true } : {}),
    ...(has("rec_head.") ? { light: true } : {}),
  };
  const one = shapesOf(arch, 1, 1, options);
  const inputs = channels(tensors, one, shapesOf(arch, 2, 1, options));
  const outputs = channels(tensors, one, shapesOf(arch, 1, 2, options));
  const shapes = shapesOf(arch, inputs, outputs, options);
  const encoder = [...shapes.keys()].filter((name) => arch.encoderPrefixes.some((p) => name.startsWith(p)));
  const matched = encoder.filter((name) => tensors.get(name)?.shape.join() === shapes.get(name)!.join());
  return { arch, inputs, shapes, patch, encoder: { matched: matched.length, total: encoder.length } };
}

/** The network of `candidates` whose encoder fits best; among equals the one that more of the file belongs to. */
export function bestFit(
  candidates: readonly Architecture[],
  tensors: Shapes,
  hint?: readonly number[],
): Fit {
  const share = ({ encoder }: Fit) => encoder.matched / encoder.total;
  const used = ({ shapes }: Fit) => [...shapes.keys()].filter((name) => tensors.has(name)).length;
  return candidates.map((arch) => fit(arch, tensors, hint)).sort((a, b) =>
    share(b) - share(a) || used(b) - used(a)
  )[0];
}
