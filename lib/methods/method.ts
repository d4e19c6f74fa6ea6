/** What a method file offers: extra parameters, a loss with named terms, what happens after a step. */
import type { Batch } from "../data/loader.ts";
import type { Architecture, BuildOptions, Network } from "../nn/network.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { Rng } from "../rng.ts";
import type { Side, Tensor } from "../tensor.ts";

/** Everything a method may use; made once per run. */
export interface Context {
  arch: Architecture;
  network: Network;
  /** Parameters of the network and of the method's own parts, trained together. */
  parameters: Parameters;
  patch: Side;
  /** Options of the method with their defaults filled in. */
  options: Record<string, number>;
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
}

/** A method bound to a network. */
export interface Learner {
  loss(step: Step): Outcome;
  /** Parameters kept beside the trained ones (a teacher), saved in checkpoints. */
  state?: Map<string, Tensor>;
  /** Called once after weights are loaded and before the first step. */
  start?(): void;
  afterStep?(): void;
}

/** One file of `lib/methods`. */
export interface Method {
  readonly name: string;
  readonly citation: string;
  readonly summary: string;
  /** Views of an image per step: 1, or 2 for crop pairs. */
  readonly views: 1 | 2;
  /** Numeric options and the paper's defaults. */
  readonly options: Record<string, number>;
  readonly terms: readonly string[];
  /** What it can train: networks on tokens, or all others; absent: both. */
  readonly networks?: "cnn" | "token";
  /** How its network is built, where that is not `{ hidden: "drop" }`. */
  readonly build?: BuildOptions;
  bind(context: Context): Learner;
}
