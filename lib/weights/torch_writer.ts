/** `.pth` files that `torch.load(weights_only=True)` opens: a pickle of dicts, texts, float32 and int64 tensors in a zip archive. */
import { ZipWriter } from "./zip.ts";

/** A tensor of the archive: `key` names its storage, which others may share. */
export class SavedTensor {
  constructor(readonly key: string, readonly shape: readonly number[]) {}
}

/** What is written: texts, numbers, truth values, null, lists, and dicts by name. */
export type Saved = string | number | boolean | null | SavedTensor | Saved[] | Map<string, Saved>;

/** The values of a storage, read when their turn has come. */
export interface Storage {
  length: number;
  /** 64-bit integers instead of float32. */
  whole?: true;
  read(): Float32Array | BigInt64Array;
}

const letters = (text: string) => Array.from(text, (letter) => letter.charCodeAt(0));

function int32(value: number): number[] {
  return [...new Uint8Array(Int32Array.of(value).buffer)];
}

/** Appends `value` in pickle protocol 2. */
function put(out: number[], value: Saved, storages: ReadonlyMap<string, Storage>): void {
  const inner = (v: Saved) => put(out, v, storages);
  const op = (code: string, ...bytes: number[]) => {
    out.push(...letters(code));
    for (const byte of bytes) out.push(byte);
  };
  const tuple = (values: Saved[]) => {
    op("(");
    values.forEach(inner);
    op("t");
  };
  if (value === null) op("N");
  else if (typeof value === "boolean") op(value ? "\x88" : "\x89");
  else if (typeof value === "string") {
    const bytes = new TextEncoder().encode(value);
    op("X", ...int32(bytes.length));
    for (const byte of bytes) out.push(byte);
  } else if (typeof value === "number") {
    if (value === (value | 0)) op("J", ...int32(value));
    else op("G", ...new Uint8Array(Float64Array.of(value).buffer).reverse());
  } else if (Array.isArray(value)) {
    op("](");
    value.forEach(inner);
    op("e");
  } else if (value instanceof Map) {
    op("}(");
    for (const [key, item] of value) {
      inner(key);
      inner(item);
    }
    op("u");
  } else {
    const stride = value.shape.map((_, d) => value.shape.slice(d + 1).reduce((a, b) => a * b, 1));
    op("ctorch._utils\n_rebuild_tensor_v2\n((");
    inner("storage");
    const { length, whole } = storages.get(value.key)!;
    op(`ctorch\n${whole ? "Long" : "Float"}Storage\n`);
    inner(value.key);
    inner("cpu");
    inner(length);
    op("tQ");
    inner(0);
    tuple([...value.shape]);
    tuple(stride);
    op("\x89ccollections\nOrderedDict\n)RtR"); // no gradient, no hooks
  }
}

/** Writes `content` and its storages to the open file, one storage in memory at a time. */
export function writeTorch(
  file: Deno.FsFile,
  content: Map<string, Saved>,
  storages: Map<string, Storage>,
): void {
  const zip = new ZipWriter(file);
  const pickle = [0x80, 2];
  put(pickle, content, storages);
  pickle.push(...letters("."));
  const add = (name: string, bytes: Uint8Array) => zip.add(`archive/${name}`, bytes.length, [bytes]);
  add("data.pkl", Uint8Array.from(pickle));
  add("byteorder", new TextEncoder().encode("little"));
  for (const [key, { length, whole, read }] of storages) {
    zip.add(
      `archive/data/${key}`,
      (whole ? 8 : 4) * length,
      function* () {
        const { buffer, byteOffset, byteLength } = read();
        yield new Uint8Array(buffer, byteOffset, byteLength);
      }(),
    );
  }
  add("version", new TextEncoder().encode("3\n"));
  zip.finish();
}
