/**
 * Intensity changes of crops, those of nnssl, S3D and CVA in pretraining and of nnU-Net in fine-tuning: drawn here from keys,
 * applied by the native library. Both views of a pair share the low resolution; the rest is drawn for each view on its own.
 */
import { native } from "../native/library.ts";
import { Rng } from "../rng.ts";
import type { Triple } from "./views.ts";

/** Numbers of the changes as `vx_intensity_wait` knows them. */
const KINDS = {
  gaussian: 0,
  rician: 1,
  blur: 2,
  brightness: 3,
  contrast: 4,
  gamma: 5,
  invertedGamma: 6,
  lowResolution: 7,
  multiplicative: 8,
  ghosting: 9,
  ringing: 10,
  biasField: 11,
  power: 12,
  invertedPower: 13,
} as const;

/** All kinds of changes. */
export const KIND_NAMES = Object.keys(KINDS) as readonly (keyof typeof KINDS)[];

/** One change: its kind, its parameters (as `vx_intensity_wait` has them), and the seed of its noise. */
export interface Change {
  kind: keyof typeof KINDS;
  a: number;
  /** Parameters after the first. */
  more?: number[];
  seed: number;
}

/** The number of a change as `vx_intensity_wait` and `vx_view` know it. */
export function kindOf(kind: Change["kind"]): number {
  return KINDS[kind];
}

/** Changes of view 0 or 1 of pair `index`, in the order in which they are applied. Channel probabilities are folded in. */
export function drawIntensity(seed: number, index: number, view: number): Change[] {
  const shared = new Rng(seed, "low resolution", index);
  const rng = new Rng(seed, "intensity", index, view);
  const out: Change[] = [];
  const maybe = (from: Rng, p: number, kind: Change["kind"], draw: () => number) => {
    const [hit, a, noise] = [from.uniform() < p, draw(), from.bits() >>> 0];
    if (hit) out.push({ kind, a, seed: noise });
  };
  const halves = (low: number, high: number) =>
    rng.uniform() < 0.5 ? rng.uniform(low, 1) : rng.uniform(1, high);
  maybe(shared, 0.1 * 0.5, "lowResolution", () => shared.uniform(0.5, 1));
  const noise = rng.uniform() < 0.5 ? "rician" : "gaussian";
  maybe(rng, 0.1, noise, () => rng.uniform(0, 0.1));
  maybe(rng, 0.2 * 0.5, "blur", () => rng.uniform(0.5, 1));
  maybe(rng, 0.15, "brightness", () => rng.uniform(0.75, 1.25));
  maybe(rng, 0.15, "contrast", () => halves(0.75, 1.25));
  maybe(rng, 0.1, "invertedGamma", () => halves(0.7, 1.5));
  maybe(rng, 0.3, "gamma", () => halves(0.7, 1.5));
  return out;
}

/** Changes of each channel of a training crop, as nnU-Net makes them (its version 2); noise has one deviation for all. */
export function drawChannels(rng: Rng, channels: number): Change[][] {
  const out: Change[][] = Array.from({ length: channels }, () => []);
  const maybe = (p: number, each: number, kind: Change["kind"], draw: () => number) => {
    if (rng.uniform() >= p) return;
    for (const list of out) {
      const [hit, a, seed] = [rng.uniform() < each, draw(), rng.bits() >>> 0];
      if (hit) list.push({ kind, a, seed });
    }
  };
  const halves = (low: number, high: number) =>
    rng.uniform() < 0.5 ? rng.uniform(low, 1) : rng.uniform(1, high);
  const deviation = rng.uniform(0, 0.1);
  maybe(0.1, 1, "gaussian", () => deviation);
  maybe(0.2, 0.5, "blur", () => rng.uniform(0.5, 1));
  maybe(0.15, 1, "brightness", () => halves(0.75, 1.25));
  maybe(0.15, 1, "contrast", () => halves(0.75, 1.25));
  maybe(0.25, 0.5, "lowResolution", () => rng.uniform(0.5, 1));
  maybe(0.1, 1, "invertedGamma", () => halves(0.7, 1.5));
  maybe(0.3, 1, "gamma", () => halves(0.7, 1.5));
  return out;
}

/** Applies `changes` to `values` [z, y, x] in place; with `clip` none of them leaves the range of values it finds. */
export async function applyIntensity(
  values: Float32Array,
  [z, y, x]: Triple,
  changes: Change[],
  clip = false,
): Promise<void> {
  for (const { kind, a, more = [], seed } of changes) {
    const parameters = Float32Array.of(a, ...more);
    const head = [values, values.length, z, y, x, KINDS[kind]] as const;
    await native().vx_intensity_wait(...head, parameters, parameters.length, clip, seed);
  }
}
