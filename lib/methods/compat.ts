/**
 * Published behaviour on request: the corrected maths is the default, and each switch of `--compat` brings back exactly
 * one defect of a reference implementation (nnssl, LatentCampus, AMAES), so that released weights and tables can be checked.
 */
import type { PairDefect } from "../data/views.ts";
import type { AlignDefect } from "../ops/align.ts";
import { oneOf, UsageError } from "../errors.ts";

/** Switches by name: the defect's id, and what it changes. */
export const switches = {
  "nnssl-align-axes": ["D01", "alignment applies the first axis of a box to the last axis of the features"],
  "nnssl-align-corners": ["D02", "alignment takes box faces for the centres of the first and last voxel"],
  "nnssl-align-size": ["D03", "alignment pools to the aligned grid with its axes reversed"],
  "nnssl-loss-map": ["D05", "the loss of token networks looks at tokens with their first two axes exchanged"],
  "nnssl-teacher-statistics": ["D07", "the norms of a token network's teacher keep mean 0 and variance 1"],
  "nnssl-box": [
    "D09",
    "the box of the overlap is its real-valued share, the crops overlap by up to 2 voxels less",
  ],
  "nnssl-pair-order": ["D10", "the first view is the lower one on every axis"],
  "nnssl-pair-fallback": [
    "D08",
    "where two crops do not fit an axis both start at 0, and the box still claims a part",
  ],
  "nnssl-teacher-restart": ["D13", "a resumed run starts its teacher anew from the student"],
  "nnssl-sparse-input": ["D04", "the first convolution of the sparse encoder reads hidden voxels"],
  "nnssl-gram-for-cosine": ["D12", "the cosine term is the Gram term, at the cosine term's weight"],
  "amaes-hidden-mean": ["D19", "the loss on hidden voxels is divided by the number of all voxels"],
} as const satisfies Record<string, readonly [defect: string, what: string]>;

/** Name of a switch. */
export type Compat = keyof typeof switches;

/**
 * The switches named on a command line, in the order of the table, so that the same set is the same run.
 * @param offered those that the method knows
 * @throws UsageError for an unknown one, or one that would change nothing
 */
export function readCompat(
  names: readonly string[],
  method: string,
  offered: readonly Compat[] = [],
): Compat[] {
  const known = Object.keys(switches) as Compat[];
  for (const name of names) {
    if (!known.includes(name as Compat)) {
      throw new UsageError(`--compat is "${name}"; ${oneOf(name, known)}`);
    }
    if (!offered.includes(name as Compat)) {
      throw new UsageError(
        `--compat ${name} changes nothing in ${method}; it knows ${offered.join(", ") || "no such switch"}`,
      );
    }
  }
  return known.filter((name) => names.includes(name));
}

/** What the drawing of crop pairs repeats of the published code. */
export function pairDefects(compat: readonly Compat[] = []): PairDefect[] {
  return [
    ...(compat.includes("nnssl-box") ? ["box" as const] : []),
    ...(compat.includes("nnssl-pair-order") ? ["order" as const] : []),
    ...(compat.includes("nnssl-pair-fallback") ? ["fallback" as const] : []),
  ];
}

/** What alignment repeats of the published code. */
export function alignDefects(compat: ReadonlySet<Compat>): AlignDefect[] {
  const known = [["nnssl-align-axes", "axes"], ["nnssl-align-corners", "corners"], [
    "nnssl-align-size",
    "size",
  ]] as const;
  return known.filter(([name]) => compat.has(name)).map(([, defect]) => defect);
}
