/** What a method file offers: options, extra parameters, a loss with named terms, what happens after a step. */
import type { Batch } from "../data/loader.ts";
import type { Architecture, BuildOptions, Kind, Network } from "../nn/network.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Teachers } from "../ops/optimizer.ts";
import type { Rng } from "../rng.ts";
import type { Side, Tensor } from "../tensor.ts";
import type { PresetName } from "../train/presets.ts";
import type { Compat } from "./compat.ts";
import type { OptionValue, Schema, Values } from "./options.ts";

/** Everything a method may use; made once per run. */
export interface Context<S extends Schema = Schema> {
  arch: Architecture;
  network: Network;
  /** Parameters of the network and of the method's own parts, trained together. */
  parameters: Parameters;
  patch: Side;
  /** Images per step; a step of two views has twice as many crops. */
  batch: number;
  /** Options of the method with their defaults filled in. */
  options: Values<S>;
  /** Switches of `--compat` that are on. */
  compat: ReadonlySet<Compat>;
}

/** One training example set of a step: `random` is a pure function of (seed, step). */
export interface Step {
  batch: Batch;
  random: Rng;
}

/** A loss and its named terms, all scalars; `hidden` and `output` let a report draw what happened. */
export interface Outcome {
  loss: Tensor;
  terms: Record<string, Tensor>;
  output: Tensor;
  hidden: Float32Array;
  /** The loss asks for every voxel, not for the hidden ones alone. */
  whole?: true;
}

/** A method bound to a network. */
export interface Learner {
  loss(step: Step): Outcome;
  /** Parameters kept beside the trained ones (a teacher), saved in checkpoints. */
  state?: Map<string, Tensor>;
  /** Called once after weights are loaded and before the first step. */
  start?(): void;
  /** What follows the trained parameters after each step. */
  teachers?: Teachers;
}

/** One file of `lib/methods`. */
export interface Method<S extends Schema = Schema> {
  readonly name: string;
  readonly citation: string;
  readonly summary: string;
  /** Views of an image per step: 1, or 2 for crop pairs. */
  readonly views: 1 | 2;
  /** Single views with the augmentation of AMAES: the batch has `inputs`, and `images` are the targets. */
  readonly reversal?: boolean;
  /** It trains the encoder under the light decoder of AMAES, which has no skips. */
  readonly light?: true;
  /** Optimizer and schedule, where they are not the network's. */
  readonly preset?: PresetName;
  /** The kind of network that it runs on; absent: both. */
  readonly networks?: Kind;
  /** Encodes lists of visible blocks, which not every CNN takes. */
  readonly sparse?: true;
  /** Options with the paper's defaults. */
  readonly options: S;
  /** Switches of `--compat` that change something in it. */
  readonly compat?: readonly Compat[];
  /** Peak learning rate on CNNs, where it is not the preset's. */
  readonly lr?: number;
  /** Optimizer steps by default, where they are not 250,000. */
  readonly steps?: Readonly<Record<Kind, number>>;
  /** A run of another method that comes first, with these options; option "stage-1" says how long it takes. */
  readonly first?: { method: Method; options: Readonly<Record<string, OptionValue>> };
  /** Parameters that start fresh even with `--from`: prefixes of their names. */
  readonly fresh?: readonly string[];
  /** How its network is built, where that is not `{ hidden: "drop" }`. */
  build?(options: Values<S>): BuildOptions;
  /** @throws UserError for options that do not fit the patch or the batch */
  bind(context: Context<S>): Learner;
}

/** The method as it stands, with the types of its options known to `bind`. */
export function defineMethod<const S extends Schema>(method: Method<S>): Method<S> {
  return method;
}
