/** Files -> store: what is there is kept, what cannot be read is refused with a reason, the rest is prepared. */
import { join } from "@std/path";
import { explain, UsageError, UserError } from "../errors.ts";
import { type Input, tag } from "./inputs.ts";
import { type IndexLine, StoreWriter } from "./store.ts";
import { NiftiFile, type Recipe } from "./volume.ts";
import { standsWhole } from "./zarr.ts";

/** What happened to one volume. */
export interface Outcome {
  id: string;
  source: string;
  status: "stored" | "present" | "refused";
  /** Empty unless refused. */
  reason: string;
}

/** More volumes in one file are a time or diffusion series, which no recipe here was made for. */
const MAX_CHANNELS = 16;

/** The part K of N of a list, K from 1: every N-th element. @throws UserError for anything but K/N */
export function shardOf<T>(list: T[], shard: string): T[] {
  const [, k, n] = shard.match(/^(\d+)\/(\d+)$/)?.map(Number) ?? [];
  if (!(k >= 1 && k <= n)) {
    throw new UsageError(
      `preprocess: --shard is "${shard}"; it must be K/N with K from 1 to N, such as 3/64`,
    );
  }
  return list.filter((_, i) => i % n === k - 1);
}

/** Prepares `inputs` into the store one after the other; yields one outcome per volume when its line is written. */
export async function* preprocess(
  writer: StoreWriter,
  inputs: Input[],
  recipe: Recipe,
): AsyncGenerator<Outcome> {
  const other = writer.all().find((line) => line.status === "stored" && line.recipe !== recipe);
  if (other) {
    throw new UserError(
      `${writer.path}: the store holds volumes of recipe ${other.recipe}; give --recipe ${other.recipe} or another -o`,
    );
  }
  for (const input of inputs) yield* one(writer, input, recipe);
}

async function* one(writer: StoreWriter, input: Input, recipe: Recipe): AsyncGenerator<Outcome> {
  const source = input.path;
  let id = input.id;
  /** The volumes of this file that the store has from an earlier run. */
  const kept = (): IndexLine[] | undefined => {
    const first = writer.get(id) ?? writer.get(`${id}_c0`);
    if (first?.status !== "stored") return undefined;
    const count = Number(first.channels ?? 1);
    const lines = count === 1 ? [first] : Array.from({ length: count }, (_, c) => writer.get(`${id}_c${c}`));
    const stands = (line?: IndexLine) =>
      line?.array && line.shape && standsWhole(join(writer.path, line.array), line.shape);
    return lines.every(stands) ? lines as IndexLine[] : undefined;
  };
  const present = (lines: IndexLine[]): Outcome[] =>
    lines.map((line) => ({ id: line.id, source, status: "present", reason: "" }));
  const refuse = (error: unknown): Outcome => {
    const text = explain(error).message;
    const reason = text.length > 10 ? text : `it cannot be read: ${text}`;
    if (writer.get(id)?.status !== "stored") writer.append({ id, source, status: "refused", reason });
    return { id, source, status: "refused", reason };
  };

  let known: Record<string, unknown>;
  let file: NiftiFile;
  try {
    const info = await Deno.stat(source);
    const stamp = { bytes: info.size, modified: info.mtime?.getTime() ?? 0 };
    const same = (line: IndexLine) =>
      line.source === source && line.bytes === stamp.bytes && line.modified === stamp.modified;
    let lines = kept();
    if (lines?.every(same)) return yield* present(lines);
    const bytes = await Deno.readFile(source);
    const image = input.image === undefined ? undefined : await Deno.readFile(input.image).catch(missing);
    const sha256 = await digest(bytes, image);
    if (lines?.every((line) => line.sha256 === sha256)) return yield* present(lines);
    if (lines && lines[0].source !== source) {
      id = `${id}-${tag(source)}`;
      lines = kept();
      if (lines?.every((line) => line.sha256 === sha256)) return yield* present(lines);
    }
    known = { sha256, ...stamp };
    file = await NiftiFile.decode(bytes, image);
  } catch (error) {
    return yield refuse(error);
  }
  using _ = file;
  const { channels } = file;
  if (channels > MAX_CHANNELS) {
    const why =
      `the file is a series of ${channels} volumes (over ${MAX_CHANNELS}); reduce or split it to single ones`;
    return yield refuse(new UserError(why));
  }
  for (let channel = 0; channel < channels; channel++) {
    let volume;
    try {
      volume = await file.prepare(recipe, channel);
    } catch (error) {
      yield refuse(error);
      continue;
    }
    const { bits, shape, affine, box, statistics } = volume;
    const name = channels === 1 ? id : `${id}_c${channel}`;
    const line = {
      id: name,
      source,
      status: "stored" as const,
      reason: "",
      array: StoreWriter.arrayOf(name),
      shape,
      affine,
      recipe,
      ...(input.modality === undefined ? {} : { modality: input.modality }),
      ...(input.subject === undefined ? {} : { subject: input.subject }),
      channels,
      channel,
      ...known,
      source_shape: volume.source.shape,
      source_spacing: volume.source.spacing,
      box: [...box.low, ...box.high],
      statistics,
    };
    writer.put(line, bits);
    yield { id: name, source, status: "stored", reason: "" };
  }
}

/** No image: the decoder says what is missing. */
function missing(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}

/** SHA-256 of a file (of header and image, one behind the other), hexadecimal. */
async function digest(bytes: Uint8Array<ArrayBuffer>, image?: Uint8Array<ArrayBuffer>): Promise<string> {
  let all = bytes;
  if (image) {
    all = new Uint8Array(bytes.length + image.length);
    all.set(bytes);
    all.set(image, bytes.length);
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all)).toHex();
}
