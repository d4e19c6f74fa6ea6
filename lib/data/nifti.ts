/**
 * NIfTI-1 and NIfTI-2: header, voxels, affine; and a NIfTI-1 writer. Field offsets follow nifti1.h and nifti2.h.
 * Voxels lie x-fastest in the file, so an array over them has shape [z, y, x]; world is RAS+ in mm.
 */
import { UserError } from "../errors.ts";
import { determinant, fromQuaternion, spacingOf, toQuaternion } from "./affine.ts";
import { gunzip, isGzip } from "./gzip.ts";

export { spacingOf } from "./affine.ts";

/** One decoded file. Voxels are float32 after slope and intercept. */
export interface Volume {
  /** Voxels per axis, z, y, x. */
  shape: [number, number, number];
  /** [z, y, x], or [c, z, y, x] when `channels` > 1. */
  data: Float32Array;
  /** 4x4: voxel (x, y, z) centre -> RAS mm. */
  affine: number[][];
  /** mm along z, y, x: the norms of the affine's columns. */
  spacing: [number, number, number];
  /** The header as in the file, 348 (NIfTI-1) or 540 (NIfTI-2) bytes. */
  header: Uint8Array;
  channels: number;
}

/** What a header says about its voxels. */
export interface Header {
  shape: [number, number, number];
  channels: number;
  datatype: number;
  littleEndian: boolean;
  /** Header and voxels in one file; false for the `.hdr` of a `.hdr`/`.img` pair. */
  single: boolean;
  /** Byte at which the voxels begin. */
  offset: number;
  /** Bytes of all voxels. */
  bytes: number;
  /** value = slope * stored + inter; 1 and 0 when scaling is off. */
  slope: number;
  inter: number;
  affine: number[][];
  spacing: [number, number, number];
  raw: Uint8Array;
}

type Numbers = ArrayLike<number> | ArrayLike<bigint>;
const TYPES: Record<
  number,
  [size: number, make: (buffer: ArrayBufferLike, at: number, n: number) => Numbers]
> = {
  2: [1, (b, at, n) => new Uint8Array(b, at, n)],
  4: [2, (b, at, n) => new Int16Array(b, at, n)],
  8: [4, (b, at, n) => new Int32Array(b, at, n)],
  16: [4, (b, at, n) => new Float32Array(b, at, n)],
  64: [8, (b, at, n) => new Float64Array(b, at, n)],
  256: [1, (b, at, n) => new Int8Array(b, at, n)],
  512: [2, (b, at, n) => new Uint16Array(b, at, n)],
  768: [4, (b, at, n) => new Uint32Array(b, at, n)],
  1024: [8, (b, at, n) => new BigInt64Array(b, at, n)],
  1280: [8, (b, at, n) => new BigUint64Array(b, at, n)],
};
const UNSUPPORTED: Record<number, string> = {
  1: "binary",
  32: "complex",
  128: "RGB colour",
  1536: "128-bit float",
  1792: "complex",
  2048: "complex",
  2304: "RGBA colour",
};
const MAX_BYTES = 2 ** 31 - 2 ** 21;
const SLACK = 2 ** 20;

/** Where the two versions keep the fields that we read. */
const FIELDS = {
  1: { datatype: 70, pixdim: 76, quatern: 256, srow: 280 },
  2: { datatype: 12, pixdim: 104, quatern: 352, srow: 400 },
};

/** Reads numbers of one header, either version and byte order. */
class Fields {
  readonly version: 1 | 2;
  readonly little: boolean;
  private readonly view: DataView;
  constructor(readonly bytes: Uint8Array, name: string) {
    const view = this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const size = (little: boolean) => bytes.length < 4 ? 0 : view.getInt32(0, little);
    this.little = size(true) === 348 || size(true) === 540;
    const length = size(this.little);
    if (length !== 348 && length !== 540) {
      throw new UserError(
        `${name}: this is not a NIfTI file (it does not begin with header size 348 or 540); remove or convert it`,
      );
    }
    this.version = length === 348 ? 1 : 2;
    if (bytes.length < length) {
      throw new UserError(
        `${name}: the file is cut inside its header (${bytes.length} of ${length} bytes); copy it again`,
      );
    }
  }
  i16 = (at: number) => this.view.getInt16(at, this.little);
  i32 = (at: number) => this.view.getInt32(at, this.little);
  i64 = (at: number) => Number(this.view.getBigInt64(at, this.little));
  f32 = (at: number) => this.view.getFloat32(at, this.little);
  /** A real number: float32 in version 1, float64 in version 2; `index` counts from byte `at`. */
  real(at: number, index = 0): number {
    return this.version === 1 ? this.f32(at + 4 * index) : this.view.getFloat64(at + 8 * index, this.little);
  }
  reals(at: number, count: number): number[] {
    return Array.from({ length: count }, (_, i) => this.real(at, i));
  }
  get codes(): { qform: number; sform: number; units: number; intent: number } {
    return this.version === 1
      ? { qform: this.i16(252), sform: this.i16(254), units: this.bytes[123], intent: this.i16(68) }
      : { qform: this.i32(344), sform: this.i32(348), units: this.i32(500), intent: this.i32(504) };
  }
}

/**
 * Reads a header from the first bytes (plain, not gzipped) of a file. Trailing axes of 1 are dropped; what remains
 * beyond the third axis counts as channels. The affine is the sform, else the qform, else the spacing alone; a form
 * with NaN or without volume is passed over. Metres and micrometres become millimetres.
 * @throws UserError for anything that is not a header of real-valued voxels, naming `name`, field and value
 */
export function parseHeader(head: Uint8Array, name: string): Header {
  const f = new Fields(head, name);
  const refuse = (why: string): never => {
    throw new UserError(`${name}: ${why}`);
  };
  const magic = new TextDecoder().decode(f.version === 1 ? head.subarray(344, 348) : head.subarray(4, 8));
  if (magic !== `n+${f.version}\0` && magic !== `ni${f.version}\0`) {
    refuse(
      `the NIfTI magic is ${
        JSON.stringify(magic)
      }, not "n+${f.version}" or "ni${f.version}"; Analyze and damaged files are not read`,
    );
  }
  const single = magic[1] === "+";

  const dim = Array.from({ length: 8 }, (_, i) => f.version === 1 ? f.i16(40 + 2 * i) : f.i64(16 + 8 * i));
  if (dim[0] < 1 || dim[0] > 7) refuse(`dim[0] is ${dim[0]}; it must be 1 to 7`);
  const sizes = dim.slice(1, 1 + dim[0]);
  const wrong = sizes.findIndex((n) => n < 1);
  if (wrong >= 0) refuse(`dim[${wrong + 1}] is ${sizes[wrong]}; every axis needs at least one voxel`);
  const [x, y = 1, z = 1, ...rest] = sizes;
  const channels = rest.reduce((a, b) => a * b, 1);

  const codes = f.codes;
  const cifti = f.version === 2 && codes.intent >= 3000 && codes.intent < 3100;
  if (cifti) {
    refuse(`intent_code ${codes.intent} is CIFTI, which holds no volume; give the volume it was made from`);
  }
  const datatype = f.i16(FIELDS[f.version].datatype);
  const kind = UNSUPPORTED[datatype];
  if (!TYPES[datatype]) {
    refuse(`datatype ${datatype}${kind ? ` (${kind})` : ""} is not read; convert it to integers or floats`);
  }

  const headerSize = f.version === 1 ? 348 : 540;
  let offset = Math.floor(f.version === 1 ? f.f32(108) : f.i64(168));
  if (!(offset >= 0)) {
    refuse(`vox_offset is ${offset}; it must be a byte position of at least ${headerSize + 4}`);
  }
  if (single) offset = offset < headerSize ? headerSize + 4 : offset;

  let slope = f.real(f.version === 1 ? 112 : 176);
  let inter = f.real(f.version === 1 ? 116 : 184);
  if (slope === 0 || !Number.isFinite(slope)) [slope, inter] = [1, 0];
  else if (!Number.isFinite(inter)) {
    refuse(`scl_inter is ${inter} while scl_slope is ${slope}; set it to a number`);
  }

  const affine = affineOf(f, [x, y, z], name);
  return {
    shape: [z, y, x],
    channels,
    datatype,
    littleEndian: f.little,
    single,
    offset,
    bytes: x * y * z * channels * TYPES[datatype][0],
    slope,
    inter,
    affine,
    spacing: spacingOf(affine),
    raw: head.slice(0, headerSize),
  };
}

function affineOf(f: Fields, size: number[], name: string): number[][] {
  const at = FIELDS[f.version];
  const { qform, sform, units } = f.codes;
  const toMm = (units & 7) === 1 ? 1000 : (units & 7) === 3 ? 0.001 : 1;
  const scaled = (rows: number[][]) => [...rows.map((r) => r.map((v) => v * toMm)), [0, 0, 0, 1]];
  if (sform > 0) {
    const s = f.reals(at.srow, 12);
    const rows = [s.slice(0, 4), s.slice(4, 8), s.slice(8, 12)];
    if (usable(rows)) return scaled(rows);
  }
  const pixdim = f.reals(at.pixdim, 4);
  const step = pixdim.slice(1).map((p, i) => size[i] === 1 && !(Math.abs(p) > 0) ? 1 : Math.abs(p));
  if (qform > 0) {
    const [b, c, d, ...origin] = f.reals(at.quatern, 6);
    const rotation = fromQuaternion(b, c, d);
    const sign = [1, 1, pixdim[0] < 0 ? -1 : 1];
    const rows = rotation.map((r, i) => [...r.map((v, j) => v * step[j] * sign[j]), origin[i]]);
    if (usable(rows)) return scaled(rows);
  }
  const rows = step.map((p, i) => [0, 1, 2, 3].map((j) => j === i ? p : 0));
  if (usable(rows)) return scaled(rows);
  const text = pixdim.slice(1).join(", ");
  throw new UserError(
    `${name}: no usable sform or qform, and pixdim ${text} gives no voxel size; set pixdim or an sform`,
  );
}

/** A 3x4 matrix that maps voxels to a volume: finite, no flat direction. */
function usable(rows: number[][]): boolean {
  if (!rows.flat().every(Number.isFinite)) return false;
  const norms = spacingOf(rows);
  return norms.every((n) => n > 0) && Math.abs(determinant(rows)) > 1e-6 * norms[0] * norms[1] * norms[2];
}

/** `bytes` without gzip. Not more than the announced voxels (and 1 MiB) is ever inflated. */
function expand(bytes: Uint8Array, name: string, announced?: number): Uint8Array {
  if (!isGzip(bytes)) return bytes;
  if (announced === undefined) {
    const header = parseHeader(gunzip(bytes.subarray(0, 4096), name, 2 ** 24, true), name);
    announced = header.single ? header.offset + header.bytes : 348;
  }
  checkSize(announced, bytes.length * 1040, name);
  return gunzip(bytes, name, announced + SLACK);
}

/** Deflate shrinks at most 1032 to 1, so a header that announces more is refused before any memory is taken. */
function checkSize(announced: number, available: number, name: string): void {
  if (announced > available) {
    throw new UserError(
      `${name}: the file is cut: its header announces ${announced} bytes, it has fewer; copy it again`,
    );
  }
  if (announced > MAX_BYTES) {
    throw new UserError(
      `${name}: ${announced} bytes of voxels are more than the 2 GiB read at once; split or crop it`,
    );
  }
}

/**
 * Decodes a NIfTI-1 or NIfTI-2 file, plain or gzipped (by content, not by suffix), either byte order, every integer
 * and float type. A 2D file is one slice; real 4D files have `channels` > 1.
 * @param name stands in error messages only
 * @param image the `.img` bytes when `bytes` is the `.hdr` of a pair
 * @throws UserError for what is refused: not NIfTI, cut, damaged, complex, RGB, CIFTI, no voxel size, NaN or infinity
 */
// deno-lint-ignore require-await
export async function readNifti(bytes: Uint8Array, name: string, image?: Uint8Array): Promise<Volume> {
  if (bytes.length === 0) throw new UserError(`${name}: the file is empty; copy it again`);
  let file = expand(bytes, name);
  const header = parseHeader(file, name);
  if (!header.single) {
    if (!image) {
      throw new UserError(`${name}: this is the header of a pair; its .img file is missing, put it beside`);
    }
    file = expand(image, name, header.offset + header.bytes);
  }
  checkSize(header.offset + header.bytes, file.length, name);
  return {
    shape: header.shape,
    data: decode(file, header, name),
    affine: header.affine,
    spacing: header.spacing,
    header: header.raw,
    channels: header.channels,
  };
}

function decode(
  file: Uint8Array,
  { datatype, offset, bytes, littleEndian, slope, inter }: Header,
  name: string,
): Float32Array {
  const [size, make] = TYPES[datatype];
  let at = file.byteOffset + offset;
  let buffer = file.buffer as ArrayBufferLike;
  if (at % size !== 0 || (!littleEndian && size > 1)) {
    const copy = file.slice(offset, offset + bytes);
    if (!littleEndian) { for (let i = 0; i < copy.length; i += size) copy.subarray(i, i + size).reverse(); }
    [buffer, at] = [copy.buffer, 0];
  }
  const stored = make(buffer, at, bytes / size);
  const data = new Float32Array(stored.length);
  let bad = 0;
  for (let i = 0; i < data.length; i++) {
    const value = data[i] = Number(stored[i]) * slope + inter;
    // Only a finite float32 less itself is 0.
    if (data[i] - data[i] !== 0 || value !== value) bad++;
  }
  if (bad > 0) {
    throw new UserError(
      `${name}: ${bad} of ${data.length} voxels are NaN, infinite or beyond float32; replace them first`,
    );
  }
  return data;
}

/** What `writeNifti` writes. */
export interface Written {
  shape: [number, number, number];
  /** [z, y, x]; the type is kept: uint8, uint16 or float32. */
  data: Uint8Array | Uint16Array | Float32Array;
  /** 4x4, voxel (x, y, z) centre -> RAS mm; used when there is no `like`. */
  affine: number[][];
  /** Header (348 or 540 bytes) whose pixdim, units, codes, quaternion and sform are copied as they are. */
  like?: Uint8Array;
}

/**
 * A gzipped little-endian NIfTI-1 file, slope 1, intercept 0, voxels at byte 352. Without `like`, sform and qform
 * both say `affine` with code 1 (a sheared affine has an sform only).
 */
export async function writeNifti({ shape: [z, y, x], data, affine, like }: Written): Promise<Uint8Array> {
  if (Math.max(z, y, x) > 32767) {
    throw new UserError(`shape ${z}, ${y}, ${x} does not fit NIfTI-1, whose axes end at 32767`);
  }
  if (data.length !== z * y * x) {
    throw new Error(`writeNifti: ${data.length} voxels for shape ${z}, ${y}, ${x}`);
  }
  const head = new Uint8Array(352);
  const view = new DataView(head.buffer);
  const i16 = (at: number, ...values: number[]) =>
    values.forEach((v, i) => view.setInt16(at + 2 * i, v, true));
  const f32 = (at: number, ...values: number[]) =>
    values.forEach((v, i) => view.setFloat32(at + 4 * i, v, true));
  view.setInt32(0, 348, true);
  head[38] = "r".charCodeAt(0);
  i16(40, 3, x, y, z, 1, 1, 1, 1);
  i16(
    70,
    data instanceof Uint8Array ? 2 : data instanceof Uint16Array ? 512 : 16,
    8 * data.BYTES_PER_ELEMENT,
  );
  f32(108, 352, 1, 0);
  head.set(new TextEncoder().encode("voxalign"), 148);
  head.set(new TextEncoder().encode("n+1\0"), 344);
  if (like) {
    const f = new Fields(like, "header to copy from");
    const at = FIELDS[f.version];
    f32(76, ...f.reals(at.pixdim, 8));
    head[123] = f.codes.units;
    i16(252, f.codes.qform, f.codes.sform);
    f32(256, ...f.reals(at.quatern, 6), ...f.reals(at.srow, 12));
  } else {
    const [dz, dy, dx] = spacingOf(affine);
    const { qfac, quaternion } = toQuaternion(affine, [dx, dy, dz]);
    f32(76, qfac, dx, dy, dz, 1, 1, 1, 1);
    head[123] = 2;
    i16(252, quaternion ? 1 : 0, 1);
    f32(
      256,
      ...(quaternion ?? [0, 0, 0]),
      ...affine.slice(0, 3).map((r) => r[3]),
      ...affine.slice(0, 3).flat(),
    );
  }
  const voxels = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  const stream = new Blob([head, voxels]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
