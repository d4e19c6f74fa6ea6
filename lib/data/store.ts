/**
 * A volume store: `index.jsonl`, one line per volume, beside one Zarr v3 array per stored volume. Lines are appended
 * whole, so that several processes may write; of two lines with one id the later counts.
 */
import { join, resolve } from "@std/path";
import { UserError } from "../errors.ts";
import { RECIPES } from "./volume.ts";
import { readArray, writeArray } from "./zarr.ts";

/** A prepared volume as the store lists it. */
export interface StoredVolume {
  /** Unique in the store. */
  id: string;
  /** Path of the Zarr v3 array, relative to the store. */
  array: string;
  /** Voxels z, y, x. */
  shape: [number, number, number];
  /** 4x4: stored voxel (x, y, z) centre -> RAS+ mm. */
  affine: number[][];
  /** Path of the file it was made from, as given or found. */
  source: string;
  /** How it was prepared, where the line says so. */
  recipe?: string;
  /** SHA-256 of that file, and which of its volumes this is. */
  sha256?: string;
  channel?: number;
}

/** A line of the index: a stored volume (with the fields of StoredVolume) or a refused file with its reason. */
export interface IndexLine {
  id: string;
  source: string;
  status: "stored" | "refused";
  reason: string;
  array?: string;
  shape?: [number, number, number];
  affine?: number[][];
  [field: string]: unknown;
}

/** Lines of `index.jsonl` in the folder `path` by id; none without the file. @throws UserError for a broken line */
export async function readIndex(path: string): Promise<Map<string, IndexLine>> {
  const file = join(path, "index.jsonl");
  let text: string;
  try {
    text = await Deno.readTextFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return new Map();
    throw error;
  }
  const lines = new Map<string, IndexLine>();
  const rows = text.split("\n");
  rows.forEach((row, i) => {
    if (row.trim() === "") return;
    let line: IndexLine | undefined;
    try {
      line = JSON.parse(row);
    } catch {
      // A write cut short by a crash leaves a last line without its end; it counts as not written.
      if (i === rows.length - 1) return;
    }
    if (typeof line?.id !== "string" || typeof line.status !== "string") {
      throw new UserError(`${file}:${i + 1}: this line is no JSON object with id and status; remove it`);
    }
    lines.set(line.id, line);
  });
  return lines;
}

/** Writes arrays and index lines of one run. */
export class StoreWriter {
  private constructor(readonly path: string, private readonly lines: Map<string, IndexLine>) {}

  /** Opens (or makes) the store at `path`. */
  static async open(path: string): Promise<StoreWriter> {
    const info = await Deno.stat(path).catch(() => undefined);
    if (info && !info.isDirectory) {
      throw new UserError(`${path}: a store is a folder, this is a file; give another -o`);
    }
    await Deno.mkdir(path, { recursive: true });
    return new StoreWriter(path, await readIndex(path));
  }

  /** The line of an id, from this run or an earlier one. */
  get(id: string): IndexLine | undefined {
    return this.lines.get(id);
  }

  /** All lines, by id. */
  all(): IndexLine[] {
    return [...this.lines.values()].sort((a, b) => a.id < b.id ? -1 : 1);
  }

  /** Where the array of a volume stands, relative to the store. */
  static arrayOf(id: string): string {
    return `volumes/${id}`;
  }

  /** Stores a volume: float16 `bits` [z, y, x] first, then its line. */
  put(line: IndexLine & StoredVolume, bits: Uint16Array): void {
    writeArray(join(this.path, line.array), bits, line.shape, { id: line.id, affine: line.affine });
    this.append(line);
  }

  /** Appends a line by one write, so that lines of parallel processes do not mix; an equal line is not repeated. */
  append(line: IndexLine): void {
    const text = JSON.stringify(line);
    const old = this.lines.get(line.id);
    if (old && JSON.stringify(old) === text) return;
    this.lines.set(line.id, line);
    const file = Deno.openSync(join(this.path, "index.jsonl"), {
      create: true,
      read: true,
      write: true,
      append: true,
    });
    try {
      const last = new Uint8Array(1);
      const size = file.statSync().size;
      if (size > 0) {
        file.seekSync(size - 1, Deno.SeekMode.Start);
        file.readSync(last);
      }
      const cut = size > 0 && last[0] !== 10;
      file.writeSync(new TextEncoder().encode(`${cut ? "\n" : ""}${text}\n`));
    } finally {
      file.close();
    }
  }

  /** Rewrites the index with one line per id, where it has more. Not while other processes write. */
  compact(): void {
    const file = join(this.path, "index.jsonl");
    const count = Deno.readTextFileSync(file).split("\n").filter((row) => row !== "").length;
    if (count === this.lines.size) return;
    Deno.writeTextFileSync(
      `${file}.partial`,
      this.all().map((line) => JSON.stringify(line) + "\n").join(""),
    );
    Deno.renameSync(`${file}.partial`, file);
  }
}

/** A store opened for reading. */
export class Store {
  /** Stored volumes, sorted by id. */
  readonly volumes: StoredVolume[];
  private readonly byId: Map<string, StoredVolume>;
  /** Decoded volumes, least recently used first. */
  private readonly cache = new Map<string, Promise<Float32Array>>();
  private cached = 0;

  private constructor(readonly path: string, volumes: StoredVolume[], private readonly cacheBytes: number) {
    this.volumes = volumes;
    this.byId = new Map(volumes.map((v) => [v.id, v]));
  }

  /**
   * Opens the store in the folder `path`. Whole volumes stay decoded up to `cacheBytes`.
   * @throws UserError for a missing folder, no index, no stored volume, an array path that leads out of the store
   */
  static async open(path: string, cacheBytes: number = 512 * 2 ** 20): Promise<Store> {
    const info = await Deno.stat(path).catch((error) => {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    });
    const make = "make it with: deno task preprocess IN -o STORE";
    if (!info) throw new UserError(`${path}: there is no such store; ${make}`);
    if (!info.isDirectory) throw new UserError(`${path}: a store is a folder, this is a file; ${make}`);
    const lines = await readIndex(path);
    if (lines.size === 0) throw new UserError(`${path}: the folder has no index.jsonl with lines; ${make}`);
    const volumes = [...lines.values()].filter((line) => line.status === "stored").map((line) =>
      check(path, line)
    );
    if (volumes.length === 0) {
      throw new UserError(
        `${path}: the index lists ${lines.size} refused files and no stored volume; ${make}`,
      );
    }
    volumes.sort((a, b) => a.id < b.id ? -1 : 1);
    return new Store(resolve(path), volumes, cacheBytes);
  }

  /** How the volumes were prepared, where all lines say the same. */
  get recipe(): string | undefined {
    const [recipe, other] = new Set(this.volumes.map((v) => v.recipe));
    return other === undefined ? recipe : undefined;
  }

  /** SHA-256 of what a run trained on: id, shape, file, channel, recipe and affine of each volume. */
  async hash(): Promise<string> {
    const text = this.volumes.map(({ id, shape, sha256, channel, recipe, affine }) =>
      JSON.stringify([id, shape, sha256, channel, recipe, affine])
    ).join("\n");
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    return new Uint8Array(digest).toHex();
  }

  /** The volume of an id. */
  get(id: string): StoredVolume | undefined {
    return this.byId.get(id);
  }

  /**
   * The voxels of a volume, float32 [z, y, x]. The array is shared with later readers: do not write to it.
   * @throws UserError for an unknown id, a damaged array, a link that leads out of the store
   */
  read(id: string): Promise<Float32Array> {
    const volume = this.byId.get(id);
    if (!volume) throw new UserError(`${this.path}: there is no volume "${id}" in the store`);
    const size = (v: StoredVolume) => 4 * v.shape[0] * v.shape[1] * v.shape[2];
    let data = this.cache.get(id);
    if (data) this.cache.delete(id);
    else {
      data = readArray(this.path, volume.array, volume.shape, `volume "${id}"`);
      data.catch(() => this.drop(id, size(volume)));
      this.cached += size(volume);
    }
    this.cache.set(id, data);
    for (const [old] of this.cache) {
      if (this.cached <= this.cacheBytes || old === id) break;
      this.drop(old, size(this.byId.get(old)!));
    }
    return data;
  }

  private drop(id: string, bytes: number): void {
    if (this.cache.delete(id)) this.cached -= bytes;
  }
}

function check(path: string, line: IndexLine): StoredVolume {
  const { id, array, shape, affine, source } = line;
  const wrong = (field: string, value: unknown, need: string): never => {
    throw new UserError(
      `${join(path, "index.jsonl")}: volume "${id}" has ${field} ${
        JSON.stringify(value)
      }; it must be ${need}`,
    );
  };
  if (
    typeof array !== "string" || array === "" || /^[/\\~]|^[A-Za-z]:|\\/.test(array) ||
    array.split("/").includes("..")
  ) {
    wrong("array", array, "a path inside the store");
  }
  if (!Array.isArray(shape) || shape.length !== 3 || !shape.every((n) => Number.isInteger(n) && n > 0)) {
    wrong("shape", shape, "three whole numbers z, y, x above 0");
  }
  if (
    !Array.isArray(affine) || affine.length !== 4 ||
    !affine.every((r) => r?.length === 4 && r.every(Number.isFinite))
  ) {
    wrong("affine", affine, "a 4x4 matrix of numbers");
  }
  const { recipe, sha256, channel } = line as Partial<StoredVolume>;
  if (recipe !== undefined && !(RECIPES as readonly string[]).includes(recipe)) {
    wrong(
      "recipe",
      recipe,
      `one that this version knows (${RECIPES.join(", ")}); preprocess the files again`,
    );
  }
  return {
    id,
    array: array!,
    shape: shape!,
    affine: affine!,
    source: String(source),
    recipe,
    sha256,
    channel,
  };
}
