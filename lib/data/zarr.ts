/**
 * Zarr v3 arrays on disk: written by us as float16 with one shard file per array (zarrita reads shards but writes
 * none). Those are checked and read by the native library, all others go through zarrita. Layout: `zarr.json` and
 * `c/0/0/0`, whose index stands at the end with its CRC-32C.
 */
import { join } from "@std/path";
import * as zarr from "zarrita";
import { UserError } from "../errors.ts";
import { native } from "../native/library.ts";
import { crc32c } from "./crc32c.ts";

/** Side of an inner chunk, voxels: small enough for random crops, large enough for few index entries. */
const CHUNK = 32;

/** Chunks, how many of them, and the metadata (without attributes) of an array that we write. */
function layout(shape: readonly number[]) {
  const chunk = shape.map((n) => Math.min(n, CHUNK));
  const grid = shape.map((n, i) => Math.ceil(n / chunk[i]));
  const little = { name: "bytes", configuration: { endian: "little" } };
  const meta = {
    zarr_format: 3,
    node_type: "array",
    shape,
    data_type: "float16",
    chunk_grid: { name: "regular", configuration: { chunk_shape: grid.map((n, i) => n * chunk[i]) } },
    chunk_key_encoding: { name: "default", configuration: { separator: "/" } },
    fill_value: 0,
    codecs: [{
      name: "sharding_indexed",
      configuration: {
        chunk_shape: chunk,
        codecs: [little],
        index_codecs: [little, { name: "crc32c" }],
        index_location: "end",
      },
    }],
    dimension_names: ["z", "y", "x"],
    storage_transformers: [],
  };
  return { chunk, grid, meta };
}

/** One shard: the inner chunks of float16 `bits` [z, y, x] in row-major order, zero padded, then the index. */
function shard(bits: Uint16Array, shape: number[], chunk: number[], grid: number[]): Uint8Array {
  const [, height, width] = shape;
  const voxels = chunk[0] * chunk[1] * chunk[2];
  const count = grid[0] * grid[1] * grid[2];
  const bytes = new Uint8Array(count * (voxels * 2 + 16) + 4);
  const index = new DataView(bytes.buffer, count * voxels * 2);
  const values = new Uint16Array(bytes.buffer, 0, count * voxels);
  for (let n = 0; n < count; n++) {
    const at = [Math.floor(n / (grid[1] * grid[2])), Math.floor(n / grid[2]) % grid[1], n % grid[2]];
    const [z0, y0, x0] = at.map((p, i) => p * chunk[i]);
    const [z1, y1, x1] = [z0, y0, x0].map((p, i) => Math.min(p + chunk[i], shape[i]));
    for (let z = z0; z < z1; z++) {
      for (let y = y0; y < y1; y++) {
        const from = (z * height + y) * width;
        values.set(
          bits.subarray(from + x0, from + x1),
          n * voxels + ((z - z0) * chunk[1] + y - y0) * chunk[2],
        );
      }
    }
    index.setBigUint64(n * 16, BigInt(n * voxels * 2), true);
    index.setBigUint64(n * 16 + 8, BigInt(voxels * 2), true);
  }
  const end = bytes.length - 4;
  new DataView(bytes.buffer).setUint32(end, crc32c(bytes.subarray(count * voxels * 2, end)), true);
  return bytes;
}

/**
 * Writes a float16 array [z, y, x] (as bits) to the folder `path`, which appears only when it is whole: the files go
 * to `path.partial`, which is renamed. An array that stands there is replaced. Nothing is awaited, so that a signal
 * never meets a half-written array.
 */
export function writeArray(
  path: string,
  bits: Uint16Array,
  shape: [number, number, number],
  attributes: Record<string, unknown> = {},
): void {
  const { chunk, grid, meta } = layout(shape);
  const partial = `${path}.partial`;
  remove(partial);
  Deno.mkdirSync(join(partial, "c", "0", "0"), { recursive: true });
  Deno.writeFileSync(join(partial, "c", "0", "0", "0"), shard(bits, shape, chunk, grid));
  Deno.writeTextFileSync(join(partial, "zarr.json"), JSON.stringify({ ...meta, attributes }, null, 2));
  remove(path);
  Deno.renameSync(partial, path);
}

function remove(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Refuses `path` (relative to `root`) when it is absolute, climbs out, or goes through a link. */
async function guard(root: string, path: string, what: string): Promise<void> {
  const parts = path.split("/");
  if (path === "" || /^[/\\]|^[A-Za-z]:|\\|\0/.test(path) || parts.includes("..")) {
    throw new UserError(`${what}: array "${path}" leads out of the store; give a path inside of it`);
  }
  let at = root;
  for (const part of parts) {
    at = join(at, part);
    if ((await Deno.lstat(at)).isSymlink) {
      throw new UserError(
        `${what}: ${at} is a link, which may lead out of the store; put the array itself there`,
      );
    }
  }
}

/** Bytes of the shard of an array of that shape. */
function shardBytes({ chunk, grid }: { chunk: number[]; grid: number[] }): number {
  const [count, voxels] = [grid, chunk].map((of) => of[0] * of[1] * of[2]);
  return count * (voxels * 2 + 16) + 4;
}

/** Whether the array that `writeArray` made at `path` has both its files, the shard at its full length. */
export function standsWhole(path: string, shape: readonly number[]): boolean {
  try {
    return Deno.statSync(join(path, "zarr.json")).isFile &&
      Deno.statSync(join(path, "c", "0", "0", "0")).size === shardBytes(layout(shape));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/** Whether the text of a `zarr.json` is what `writeArray` gives an array of that shape. */
function isOwn(shape: readonly number[], text: Uint8Array): boolean {
  const { attributes, ...found } = JSON.parse(new TextDecoder().decode(text));
  return JSON.stringify(found) === JSON.stringify(layout(shape).meta) &&
    ["dtype", "scale", "offset"].every((key) => attributes?.[key] === undefined);
}

/**
 * The voxels of a shard of `writeArray`, put together by the native library beside the caller's work.
 * @throws Error that says what is wrong with the shard: other readers would take what is missing for zeros
 */
async function readShard(shape: readonly number[], bytes: Uint8Array | undefined): Promise<Float32Array> {
  const { chunk, grid } = layout(shape);
  const [count, voxels] = [grid, chunk].map((of) => of[0] * of[1] * of[2]);
  const needed = shardBytes({ chunk, grid });
  if (!bytes) throw new Error("the file is missing");
  if (bytes.length !== needed) throw new Error(`it has ${bytes.length} bytes instead of ${needed}`);
  const [start, end] = [count * voxels * 2, bytes.length - 4];
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const entry = (at: number) => Number(view.getBigUint64(start + at * 8, true));
  const whole = crc32c(bytes.subarray(start, end)) === view.getUint32(end, true) &&
    Array.from({ length: count }, (_, n) => n).every((n) =>
      entry(2 * n) === n * voxels * 2 && entry(2 * n + 1) === voxels * 2
    );
  if (!whole) throw new Error("its index does not fit its checksum or its chunks");
  const out = new Float32Array(shape[0] * shape[1] * shape[2]);
  const chunks = new Uint16Array(bytes.buffer, bytes.byteOffset, count * voxels);
  const [cz, cy, cx] = chunk;
  const [z, y, x] = shape;
  await native().vx_chunks_read_wait(chunks, chunks.length, cz, cy, cx, out, out.length, z, y, x);
  return out;
}

/**
 * Reads a whole Zarr v3 array [z, y, x] of the store `root` as float32. float16, float32, integers with attributes
 * `scale` and `offset`, and bfloat16 as uint16 with attribute `dtype`.
 * @param what stands in errors
 * @throws UserError for a path or link that leads out of the store, a damaged array, another shape than `shape`
 */
export async function readArray(
  root: string,
  path: string,
  shape: readonly number[],
  what: string,
): Promise<Float32Array> {
  const files = new Map<string, Promise<Uint8Array | undefined>>();
  const load = async (key: string): Promise<Uint8Array | undefined> => {
    try {
      await guard(root, `${path}${key}`, what);
      return await Deno.readFile(join(root, `${path}${key}`));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  };
  const get = (key: string) => {
    if (!files.has(key)) files.set(key, load(key));
    return files.get(key)!;
  };
  const source = {
    get,
    async getRange(key: string, range: zarr.RangeQuery) {
      const bytes = await get(key);
      if (!bytes) return undefined;
      return "suffixLength" in range
        ? bytes.subarray(-range.suffixLength)
        : bytes.subarray(range.offset, range.offset + range.length);
    },
  };
  let damaged = join(root, path);
  try {
    await guard(root, path, what);
    const metadata = await get("/zarr.json");
    if (!metadata) throw new Error("zarr.json is missing");
    if (isOwn(shape, metadata)) {
      damaged = join(root, path, "c", "0", "0", "0");
      return await readShard(shape, await get("/c/0/0/0"));
    }
    const array = await zarr.open.v3(source as zarr.AsyncReadable, { kind: "array" });
    if (array.shape.length !== 3 || array.shape.some((n, i) => n !== shape[i])) {
      throw new UserError(
        `${what}: array ${path} is ${array.shape.join(" x ")}, the index says ${shape.join(" x ")}`,
      );
    }
    const { data } = await zarr.get(array);
    return decode(data as ArrayLike<number>, array.attrs);
  } catch (error) {
    const { PermissionDenied, NotCapable, NotFound } = Deno.errors;
    if ([UserError, PermissionDenied, NotCapable].some((kind) => error instanceof kind)) throw error;
    const why = error instanceof NotFound ? "there is no such folder" : (error as Error).message;
    throw new UserError(
      `${what}: ${damaged} is damaged (${why}); delete the folder ${
        join(root, path)
      } and run preprocess again`,
    );
  }
}

function decode(data: ArrayLike<number>, attributes: Record<string, unknown>): Float32Array {
  const out = new Float32Array(data.length);
  if (attributes.dtype === "bfloat16") {
    const bits = new Uint32Array(out.buffer);
    for (let i = 0; i < bits.length; i++) bits[i] = data[i] << 16;
    return out;
  }
  out.set(data as Float32Array);
  const [scale, offset] = [Number(attributes.scale ?? 1), Number(attributes.offset ?? 0)];
  if (scale !== 1 || offset !== 0) { for (let i = 0; i < out.length; i++) out[i] = out[i] * scale + offset; }
  return out;
}
