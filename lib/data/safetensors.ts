/**
 * safetensors: 8 bytes header length, a JSON header {name: {dtype, shape, data_offsets}}, then the values, little endian.
 * Written as F32; F16 and BF16 are read too and widened. Names are stored sorted, so equal tensors give equal bytes.
 */
import { UserError } from "../errors.ts";

/** Values in C order; `data.length` is the product of `shape` (1 for an empty shape). */
export interface Tensor {
  shape: number[];
  data: Float32Array;
}

/** Longest header that the format's own reader accepts, in bytes. */
const LONGEST_HEADER = 100_000_000;

const WIDTH: Record<string, number> = { F32: 4, F16: 2, BF16: 2 };
/** Types that files of others hold. */
const ANY_WIDTH: Record<string, number> = { ...WIDTH, F64: 8, I64: 8, I32: 4, I16: 2, I8: 1, U8: 1, BOOL: 1 };

const count = (shape: number[]) => shape.reduce((product, side) => product * side, 1);

/** The head of a file (length and JSON, padded to 8) and where each tensor starts behind it, names sorted. */
function layout(
  shapes: Map<string, number[]>,
  metadata: Record<string, string>,
): { head: Uint8Array; starts: Map<string, number>; end: number } {
  const header: Record<string, unknown> = {};
  const keys = Object.keys(metadata).sort();
  if (keys.length) header.__metadata__ = Object.fromEntries(keys.map((key) => [key, metadata[key]]));
  const starts = new Map<string, number>();
  let end = 0;
  for (const name of [...shapes.keys()].sort()) {
    const shape = shapes.get(name)!;
    starts.set(name, end);
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + 4 * count(shape)] };
    end += 4 * count(shape);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(32);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  return { head, starts, end };
}

const bytesOf = (data: Float32Array) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** A file of `tensors` with string `metadata`. @throws Error when a shape and its data differ in size. */
export function encode(
  tensors: Map<string, Tensor>,
  metadata: Record<string, string> = {},
): Uint8Array<ArrayBuffer> {
  for (const [name, { shape, data }] of tensors) {
    if (count(shape) !== data.length) {
      throw new Error(`${name}: shape [${shape}] does not hold ${data.length} values`);
    }
  }
  const { head, starts, end } = layout(new Map([...tensors].map(([name, t]) => [name, t.shape])), metadata);
  const bytes = new Uint8Array(head.length + end);
  bytes.set(head);
  for (const [name, start] of starts) bytes.set(bytesOf(tensors.get(name)!.data), head.length + start);
  return bytes;
}

/** A tensor that is read when its turn to be written has come. */
export interface Source {
  shape: number[];
  read(into: Float32Array): Float32Array;
}

/**
 * Writes the same file as `encode` one tensor at a time: a checkpoint costs no second copy of the network. The name
 * `path` appears when the file is whole; nothing stays after a failure, such as a full disk.
 */
export function writeFile(
  path: string,
  tensors: Map<string, Source>,
  metadata: Record<string, string> = {},
): void {
  const { head, starts } = layout(new Map([...tensors].map(([name, t]) => [name, t.shape])), metadata);
  const longest = Math.max(0, ...[...tensors.values()].map((t) => count(t.shape)));
  const buffer = new Float32Array(longest);
  const partial = `${path}.partial`;
  const file = Deno.openSync(partial, { create: true, write: true, truncate: true });
  try {
    const put = (bytes: Uint8Array) => {
      for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
    };
    put(head);
    for (const name of starts.keys()) {
      const { shape, read } = tensors.get(name)!;
      put(bytesOf(read(buffer.subarray(0, count(shape)))));
    }
    Deno.renameSync(partial, path);
  } catch (error) {
    Deno.removeSync(partial);
    throw error;
  } finally {
    file.close();
  }
}

/** The float32 value of IEEE half-precision bits. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

/** The float32 values of little-endian `bytes` of type `dtype`; wider types are rounded. */
export function widen(dtype: string, bytes: Uint8Array): Float32Array {
  const copy = bytes.slice().buffer;
  if (dtype === "F32") return new Float32Array(copy);
  if (dtype === "F16") return Float32Array.from(new Uint16Array(copy), half);
  if (dtype === "BF16") {
    return new Float32Array(Uint32Array.from(new Uint16Array(copy), (b) => b << 16).buffer);
  }
  if (dtype === "F64") return Float32Array.from(new Float64Array(copy));
  if (dtype === "I64") return Float32Array.from(new BigInt64Array(copy), Number);
  if (dtype === "I32") return Float32Array.from(new Int32Array(copy));
  if (dtype === "I16") return Float32Array.from(new Int16Array(copy));
  return Float32Array.from(dtype === "I8" ? new Int8Array(copy) : new Uint8Array(copy));
}

/** Bytes of one value of type `dtype`. */
export function widthOf(dtype: string): number {
  return ANY_WIDTH[dtype];
}

/** Tells whether `value` is a list of whole numbers from 0. */
function wholes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** Where a tensor lies behind the header, in bytes. */
export interface Span {
  key: string;
  dtype: string;
  shape: number[];
  start: number;
  end: number;
}

/**
 * Checks the first bytes of a file of `total` bytes; `head` holds the whole header or the file. Spans come in the order of
 * the file and count from `begin`. `any`: types beyond F32, F16 and BF16 too.
 * @throws UserError when the header, a type, a shape or an offset is wrong, or values overlap or leave gaps.
 */
export function readHeader(
  head: Uint8Array,
  total: number,
  name: string,
  any = false,
): { spans: Span[]; metadata: Record<string, string>; begin: number } {
  const fail = (what: string): never => {
    throw new UserError(`${name}: ${what}; this is no intact safetensors file, copy or export it again`);
  };
  const widths = any ? ANY_WIDTH : WIDTH;
  const begin = 8 + headerLength(head, total, name);
  let header: Record<string, unknown> = {};
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(head.subarray(8, begin)));
  } catch {
    fail("its header is not JSON");
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    fail("its header is not a JSON object");
  }
  const { __metadata__: metadata = {}, ...entries } = header;
  if (
    typeof metadata !== "object" || metadata === null ||
    Object.values(metadata).some((v) => typeof v !== "string")
  ) {
    fail("its __metadata__ is not a map of texts");
  }
  const length = total - begin;
  const spans: Span[] = [];
  for (const [key, entry] of Object.entries(entries)) {
    const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
    if (typeof dtype !== "string" || !wholes(shape) || !wholes(offsets) || offsets.length !== 2) {
      fail(`tensor "${key}" lacks a right dtype, shape or data_offsets`);
    } else if (!Object.hasOwn(widths, dtype)) {
      throw new UserError(
        `${name}: tensor "${key}" is ${dtype}; only F32, F16 and BF16 are read, convert it first`,
      );
    } else {
      const [start, end] = offsets;
      if (end > length) fail(`tensor "${key}" ends at byte ${end} of ${length}`);
      if (end - start !== count(shape) * widths[dtype]) {
        fail(`tensor "${key}" of shape [${shape}] has ${end - start} bytes`);
      }
      spans.push({ key, dtype, shape, start, end });
    }
  }
  spans.sort((a, b) => a.start - b.start || a.end - b.end);
  let at = 0;
  for (const { key, start, end } of spans) {
    if (start !== at) {
      fail(`tensor "${key}" starts at byte ${start}, not ${at}: values overlap or leave a gap`);
    }
    at = end;
  }
  if (at !== length) fail(`${length - at} bytes belong to no tensor`);
  return { spans, metadata: metadata as Record<string, string>, begin };
}

/** Bytes of the JSON header of a file of `total` bytes that begins with `head` (8 bytes at least). @throws UserError */
export function headerLength(head: Uint8Array, total: number, name: string): number {
  const size = head.length < 8
    ? Infinity
    : Number(new DataView(head.buffer, head.byteOffset, 8).getBigUint64(0, true));
  if (size <= LONGEST_HEADER && size <= total - 8) return size;
  const what = total < 8
    ? `has ${total} bytes, too few for a header`
    : `its header length ${size} exceeds the file (${total} bytes)`;
  throw new UserError(`${name}: ${what}; this is no intact safetensors file, copy or export it again`);
}

/** Reads a whole file; `name` is used in errors. @throws UserError as `readHeader` does */
export function decode(
  bytes: Uint8Array,
  name: string,
): { tensors: Map<string, Tensor>; metadata: Record<string, string> } {
  const { spans, metadata, begin } = readHeader(bytes, bytes.length, name);
  const tensors = new Map(spans.map(({ key, dtype, shape, start, end }) => {
    return [key, { shape, data: widen(dtype, bytes.subarray(begin + start, begin + end)) }];
  }));
  return { tensors, metadata };
}
