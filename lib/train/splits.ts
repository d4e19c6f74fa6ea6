/** Cross-validation splits as nnU-Net makes them, and the few-label subsets that are drawn from them. */
import { join } from "@std/path";
import { UserError } from "../errors.ts";
import { Rng } from "../rng.ts";

/** One fold: case names, sorted. The form of nnU-Net's splits_final.json, which is a list of these. */
export interface Split {
  train: string[];
  val: string[];
}

/** MT19937 (Matsumoto and Nishimura 1998) with the seeding of NumPy's RandomState. */
class Twister {
  #state = new Uint32Array(624);
  #at = 624;

  constructor(seed: number) {
    const s = this.#state;
    s[0] = seed;
    for (let i = 1; i < 624; i++) s[i] = Math.imul(1812433253, s[i - 1] ^ (s[i - 1] >>> 30)) + i;
  }

  #bits(): number {
    const s = this.#state;
    if (this.#at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
        s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.#at = 0;
    }
    let y = s[this.#at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** NumPy's legacy shuffle of 0..n-1: Fisher and Yates from the end, bounded draws by masked rejection. */
  permutation(n: number): number[] {
    const out = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const mask = 2 ** (32 - Math.clz32(i)) - 1;
      let j = (this.#bits() & mask) >>> 0;
      while (j > i) j = (this.#bits() & mask) >>> 0;
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
}

/** The person of a case named as BIDS does (`sub-07_ses-2_T1w`): what goes before the session; else the case itself. */
export function subjectOf(name: string): string {
  return name.match(/^(?:.*?[^A-Za-z0-9])?sub-[A-Za-z0-9]+/)?.[0] ?? name;
}

/**
 * sklearn's KFold(5, shuffle=True, random_state=12345) over the sorted subjects. Where no subject has two cases these are
 * the splits of nnU-Net; else all cases of a person are on one side.
 */
export function kfold(names: readonly string[], folds = 5): Split[] {
  const sorted = [...names].sort();
  const groups = [...Map.groupBy(sorted, subjectOf).values()];
  const order = new Twister(12345).permutation(groups.length);
  let start = 0;
  return Array.from({ length: folds }, (_, f) => {
    const size = Math.floor(groups.length / folds) + (f < groups.length % folds ? 1 : 0);
    const chosen = new Set(order.slice(start, start += size).flatMap((i) => groups[i]));
    return {
      train: sorted.filter((name) => !chosen.has(name)),
      val: sorted.filter((name) => chosen.has(name)),
    };
  });
}

/**
 * The split of a fold: a number, or `all`, which trains on every case and validates on none.
 * @param file name of the list of splits, for the error
 * @throws UserError when there is no such fold
 */
export function splitOf(fold: string, splits: Split[], names: readonly string[], file: string): Split {
  if (fold === "all") return { train: [...names].sort(), val: [] };
  const found = splits[Number(fold)];
  if (!found) {
    throw new UserError(`${file}: it has no fold ${fold}; give --fold 0 to ${splits.length - 1} or all`);
  }
  return found;
}

/**
 * `count` of the training cases, a function of (draw, cases) alone; a larger count holds the smaller ones.
 * @throws UserError when there are fewer
 */
export function draw(train: readonly string[], count: number, draw: number): string[] {
  if (count > train.length) {
    throw new UserError(
      `--labels is ${count}, but the fold has ${train.length} training cases; give at most that`,
    );
  }
  const sorted = [...train].sort();
  return [...new Rng(draw, "labels").permutation(sorted.length).subarray(0, count)].map((i) => sorted[i])
    .sort();
}

/** Checks a list of splits read from `file` against the cases there are. @throws UserError naming the first fault */
export function checkSplits(value: unknown, names: readonly string[], file: string): Split[] {
  const known = new Set(names);
  if (!Array.isArray(value) || value.length === 0) {
    throw new UserError(`${file}: it must be a list of {"train": [...], "val": [...]}, as nnU-Net writes it`);
  }
  value.forEach((split, i) => {
    for (const part of ["train", "val"] as const) {
      const list = split?.[part];
      if (!Array.isArray(list) || list.length === 0) {
        throw new UserError(`${file}: fold ${i} has no list "${part}" of cases`);
      }
      const odd = list.find((name) => !known.has(name));
      if (odd !== undefined) {
        throw new UserError(`${file}: fold ${i} names case "${odd}", which the dataset has not`);
      }
    }
    const both = split.val.find((name: string) => split.train.includes(name));
    if (both !== undefined) throw new UserError(`${file}: fold ${i} has case "${both}" in train and in val`);
  });
  return value;
}

/**
 * The splits of a dataset: its own splits_final.json where it has one, else five folds of its cases; one split of all
 * cases when there are fewer than five and `fold` is `all`.
 * @throws UserError when a numbered fold is asked of fewer than five cases
 */
export async function foldsOf(folder: string, names: readonly string[], fold: string): Promise<Split[]> {
  const file = join(folder, "splits_final.json");
  try {
    return checkSplits(JSON.parse(await Deno.readTextFile(file)), names, file);
  } catch (error) {
    if (error instanceof SyntaxError) throw new UserError(`${file}: it is not JSON (${error.message})`);
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const subjects = new Set(names.map(subjectOf)).size;
  if (subjects >= 5) return kfold(names);
  if (fold === "all") return [{ train: [...names], val: [] }];
  throw new UserError(
    `${folder}: --fold ${fold} needs at least 5 labelled cases${
      subjects < names.length ? " of different persons" : ""
    }, there are ${subjects}; use --fold all`,
  );
}
