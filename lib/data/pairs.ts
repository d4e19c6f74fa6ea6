/** Crop pairs as JSON lines: read from a file or a pipe, or drawn here; the same seed gives the same pairs. */
import { UserError } from "../errors.ts";
import {
  type Box,
  drawPair,
  type Extent,
  type Pair,
  place,
  sideOf,
  type Triple,
  type View,
} from "./views.ts";

/** The part of a store that pairs need. */
export interface Volumes {
  readonly volumes: readonly Extent[];
  get(id: string): Extent | undefined;
}

/** Pairs `from`, `from` + 1, ... (to `to`, exclusive) of the run of `seed`. */
export async function* drawPairs(
  store: Volumes,
  patch: Triple,
  seed: number,
  { from = 0, to = Infinity, augment = true }: { from?: number; to?: number; augment?: boolean } = {},
): AsyncGenerator<Pair> {
  for (let index = from; index < to; index++) yield drawPair(seed, index, store.volumes, patch, augment);
}

/** Numbers of `value` when it is an array of `length` finite ones. */
function numbers(value: unknown, length: number): number[] | undefined {
  return Array.isArray(value) && value.length === length && value.every(Number.isFinite) ? value : undefined;
}

function checkView(name: string, view: unknown, shape: Triple, patch: Triple): View {
  const { box: rawBox, affine: rawAffine } = (view ?? {}) as Record<string, unknown>;
  const box = numbers(rawBox, 6) as Box | undefined;
  if (!box?.every(Number.isInteger)) {
    throw `${name}.box is ${JSON.stringify(rawBox)}; it must be six whole numbers`;
  }
  const rows = Array.isArray(rawAffine) && rawAffine.length === 3 ? rawAffine : [];
  if (!rows.length || !rows.every((row) => numbers(row, 4))) {
    throw `${name}.affine must be three rows of four numbers`;
  }
  const result: View = { box, affine: rows };
  const side = sideOf(result);
  if (side.some((s, d) => s !== patch[d])) {
    throw `${name}.box has sides ${side.join(" x ")}, the patch is ${
      patch.join(" x ")
    }; draw the pairs with that patch`;
  }
  const fits = (d: number) =>
    patch[d] <= shape[d] ? box[d] >= 0 && box[d + 3] <= shape[d] : box[d] <= 0 && box[d + 3] >= shape[d];
  const out = () => `${name}.box [${box.join(", ")}] runs out of its volume of ${shape.join(" x ")} voxels`;
  if (![0, 1, 2].every(fits)) throw out();
  const straight = rows.every((row, r) => [0, 1, 2].every((c) => Math.abs(row[c]) === Number(r === c)));
  const [p, q] = [place(result, [0, 0, 0]), place(result, patch)];
  const middle = place(result, patch.map((s) => s / 2));
  for (const d of [0, 1, 2]) {
    const wrong = straight
      ? Math.min(p[d], q[d]) !== box[d] || Math.max(p[d], q[d]) !== box[d + 3]
      : middle[d] < -patch[d] || middle[d] > shape[d] + patch[d];
    if (wrong) throw `${name}.affine leads out of ${name}.box`;
  }
  return result;
}

/** Checks a parsed line against the store. Throws a string: what is wrong. */
function check(value: unknown, store: Volumes, patch: Triple): Pair {
  const { seed, index, volume, a, b, overlap } = (value ?? {}) as Record<string, unknown>;
  if (typeof seed !== "number" || !Number.isFinite(seed)) {
    throw `seed is ${JSON.stringify(seed)}; it must be a number`;
  }
  if (!Number.isInteger(index) || (index as number) < 0) {
    throw `index is ${JSON.stringify(index)}; it must be a whole number from 0`;
  }
  const found = typeof volume === "string" ? store.get(volume) : undefined;
  if (!found) throw `volume ${JSON.stringify(volume) ?? "is missing: it"} is not in the store`;
  const views = { a: checkView("a", a, found.shape, patch), b: checkView("b", b, found.shape, patch) };
  const boxes = {} as { a: Box; b: Box };
  for (const name of ["a", "b"] as const) {
    const box = numbers((overlap as Record<string, unknown> | undefined)?.[name], 6);
    if (!box || [0, 1, 2].some((d) => box[d] < 0 || box[d + 3] > 1 || box[d] >= box[d + 3])) {
      throw `overlap.${name} is ${JSON.stringify(box)}; it must be six fractions, lo below hi, from 0 to 1`;
    }
    boxes[name] = box as Box;
  }
  for (let corner = 0; corner < 8; corner++) {
    const at = (name: "a" | "b") =>
      place(views[name], patch.map((side, d) => side * boxes[name][d + (corner >> d & 1) * 3]));
    const q = at("b");
    if (at("a").some((v, d) => Math.abs(v - q[d]) > 0.05)) {
      throw `overlap.a and overlap.b are not the same voxels`;
    }
  }
  return { seed, index: index as number, volume: found.id, ...views, overlap: boxes };
}

/**
 * Pairs of a stream of JSON lines; `name` is how errors call it. Empty lines are skipped.
 * @throws UserError naming the line: no JSON, a volume that the store lacks, a box out of its volume, another patch
 */
export async function* readPairs(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  name: string,
  store: Volumes,
  patch: Triple,
): AsyncGenerator<Pair> {
  let line = 0;
  const parse = (text: string): Pair | undefined => {
    line++;
    if (text.trim() === "") return;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw new UserError(
        `${name}:${line}: this line is no JSON object; pairs come from: deno task crop-pairs STORE`,
      );
    }
    try {
      return check(value, store, patch);
    } catch (why) {
      if (typeof why !== "string") throw why;
      throw new UserError(`${name}:${line}: ${why}`);
    }
  };
  let rest = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    for (const text of lines) {
      const pair = parse(text);
      if (pair) yield pair;
    }
  }
  const last = parse(rest);
  if (last) yield last;
}
