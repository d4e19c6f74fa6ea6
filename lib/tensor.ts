/**
 * Tensors: values owned by the native library, in rows of channels. Storage is f32, or bf16 for activations and their
 * gradients (8 significant bits, sums still in f32); an op's output has the type of its input, parameters stay f32.
 *
 * A volume tensor is `[block][z][y][x][c]` on a grid that lists the visible blocks of each sample; a dense batch is the
 * grid with one block per sample, as large as the volume. A matrix is `[rows][channels]` with no grid.
 * Free tensors with `using`, or let `scope` free everything made inside it.
 */
import { native } from "./native/library.ts";
import type { Rng } from "./rng.ts";

/** z, y, x. */
export type Side = readonly [number, number, number];

const scopes: Set<Disposable>[] = [];

function track<T extends Disposable>(value: T): T {
  scopes.at(-1)?.add(value);
  return value;
}

/** Frees everything made inside `body` but not passed to `keep`. Scopes nest; `body` must not await other scopes. */
export async function scope<T>(
  body: (keep: <K extends Disposable>(value: K) => K) => T | Promise<T>,
): Promise<T> {
  const made = new Set<Disposable>();
  scopes.push(made);
  try {
    return await body((value) => {
      if (value instanceof Tensor) value.hold();
      made.delete(value);
      return value;
    });
  } finally {
    scopes.splice(scopes.indexOf(made), 1);
    for (const value of made) value[Symbol.dispose]();
  }
}

/**
 * Frees everything made inside `body` but its result, or what `kept` lists of it; memory goes when enqueued work no longer
 * needs it.
 */
export function alone<K extends Disposable>(body: () => K): K;
export function alone<K>(body: () => K, kept: (result: K) => Iterable<Disposable>): K;
export function alone<K>(
  body: () => K,
  kept = (result: K) => [result as Disposable] as Iterable<Disposable>,
): K {
  const made = new Set<Disposable>();
  scopes.push(made);
  try {
    const result = body();
    for (const value of kept(result)) {
      if (value instanceof Tensor) value.hold();
      if (made.delete(value)) scopes.at(-2)?.add(value);
    }
    return result;
  } finally {
    scopes.splice(scopes.indexOf(made), 1);
    for (const value of made) value[Symbol.dispose]();
  }
}

/** Which blocks of a batch exist: `dims` blocks per axis in each of `samples` volumes. */
export class Grid implements Disposable {
  #handle: number;
  readonly blocks: number;

  /** @param visible one byte per block, `[sample][z][y][x]`, 1 = visible; default: all */
  constructor(readonly samples: number, readonly dims: Side, readonly visible?: Uint8Array) {
    const cells = visible ?? new Uint8Array(samples * dims[0] * dims[1] * dims[2]).fill(1);
    this.#handle = native().vx_grid_new(samples, ...dims, cells, cells.length);
    this.blocks = native().vx_grid_blocks(this.#handle);
    track(this);
  }

  /** One block per sample: the dense case. */
  static dense(samples: number): Grid {
    return new Grid(samples, [1, 1, 1]);
  }

  get handle(): number {
    return this.#handle;
  }

  [Symbol.dispose](): void {
    if (this.#handle) native().vx_grid_free(this.#handle);
    this.#handle = 0;
  }
}

/** Where the rows of a tensor lie: a grid and the side of its blocks at this resolution. */
export interface Layout {
  grid: Grid;
  side: Side;
}

/** Storage types, in the order of their numbers at the boundary. */
const DTYPES = ["f32", "bf16"] as const;
export type Dtype = typeof DTYPES[number];

/** Number of a storage type at the boundary. */
export function dtypeNumber(dtype: Dtype): number {
  return DTYPES.indexOf(dtype);
}

/** Values in rows of `channels`, on a layout or as a plain matrix. */
export class Tensor implements Disposable {
  #handle: number;
  #make?: () => number;
  /** Storage type; values cross the boundary as f32. */
  readonly dtype: Dtype;

  /** Takes ownership of a native handle, or of what `handle` makes: now, and again when asked for after `drop`. */
  constructor(
    handle: number | (() => number),
    readonly rows: number,
    readonly channels: number,
    readonly layout?: Layout,
  ) {
    if (typeof handle === "function") this.#make = handle;
    this.#handle = typeof handle === "function" ? handle() : handle;
    this.dtype = DTYPES[native().vx_tensor_dtype(this.#handle)];
    if (layout && rows !== layout.grid.blocks * volume(layout.side)) {
      throw new Error(`a tensor of ${rows} rows does not fit ${layout.grid.blocks} blocks of ${layout.side}`);
    }
    track(this);
  }

  /** A copy of `values`, `[rows][channels]`, rounded to `dtype`. */
  static from(values: Float32Array, channels: number, layout?: Layout, dtype: Dtype = "f32"): Tensor {
    if (!(values instanceof Float32Array)) throw new TypeError("tensor values must be a Float32Array");
    return new Tensor(
      native().vx_tensor_from(values, values.length, dtypeNumber(dtype)),
      values.length / channels,
      channels,
      layout,
    );
  }

  /** All `value`. */
  static full(
    value: number,
    rows: number,
    channels: number,
    layout?: Layout,
    dtype: Dtype = "f32",
  ): Tensor {
    const handle = native().vx_tensor_full(rows * channels, value, dtypeNumber(dtype));
    return new Tensor(handle, rows, channels, layout);
  }

  /** What `rng.uniform(low, high)` would draw next. */
  static uniform(rng: Rng, low: number, high: number, rows: number, channels: number): Tensor {
    const handle = native().vx_tensor_uniform(rows * channels, ...rng.state(), low, high);
    return new Tensor(handle, rows, channels);
  }

  get handle(): number {
    if (!this.#handle && this.#make) this.#handle = this.#make();
    if (!this.#handle) throw new Error("a freed tensor is used");
    return this.#handle;
  }

  /**
   * Frees the values of a tensor that can make them again, as the backward pass will ask: for outputs that take less time
   * to make than the memory is worth in between. Other tensors keep theirs.
   */
  drop(): void {
    if (this.#handle && this.#make) {
      native().vx_tensor_free(this.#handle);
      this.#handle = 0;
    }
  }

  get length(): number {
    return this.rows * this.channels;
  }

  /** Grid, side z, y, x: what volume ops need. @throws when the tensor is a matrix */
  get space(): Layout {
    if (!this.layout) {
      throw new Error(`a volume tensor is needed, this is a matrix of ${this.rows} x ${this.channels}`);
    }
    return this.layout;
  }

  /** From now on the values stay: what they are made of may go. */
  hold(): void {
    if (this.handle) this.#make = undefined;
  }

  /** Waits for the queue and copies the values out. Blocks: for tests, reports and scalars after `wait()`. */
  read(out: Float32Array = new Float32Array(this.length)): Float32Array {
    native().vx_tensor_read(this.handle, out, out.length);
    return out;
  }

  /** Overwrites the values. */
  write(values: Float32Array): void {
    native().vx_tensor_write(this.handle, values, values.length);
  }

  /** The same values in a tensor of their own. */
  clone(): Tensor {
    const handle = native().vx_tensor_cast(this.handle, dtypeNumber(this.dtype));
    return new Tensor(handle, this.rows, this.channels, this.layout);
  }

  [Symbol.dispose](): void {
    if (this.#handle) native().vx_tensor_free(this.#handle);
    this.#handle = 0;
    this.#make = undefined;
  }
}

/** Voxels of a box of this side. */
export function volume(side: Side): number {
  return side[0] * side[1] * side[2];
}

/**
 * Waits, without blocking the event loop, for all work given to the native library: once per training step.
 * @returns false when the work was dropped by `cancel`
 */
export async function wait(): Promise<boolean> {
  return await native().vx_queue_wait() === 0;
}

/** Brings values to the host with the one wait of a step: reading them then copies no more from the GPU. */
export function fetch(tensors: readonly Tensor[]): void {
  const handles = Uint32Array.from(tensors, (t) => t.handle);
  native().vx_tensors_fetch(handles, handles.length);
}

/** Runs `body`, whose native work `cancel` may drop, and all that follows it up to the next wait with it. */
export function cancellable<T>(body: () => T): T {
  native().vx_queue_cancellable(true);
  try {
    return body();
  } finally {
    native().vx_queue_cancellable(false);
  }
}

/** Drops cancellable work that has not started: a step then happens whole or not at all. */
export function cancel(yes = true): void {
  native().vx_queue_cancel(yes);
}

/** While planning, work is dropped and its tensors are counted, not made; the peak counts anew at either end. */
export function planning(on: boolean): void {
  native().vx_plan(on);
  native().vx_peak_reset();
}

/** What native memory holds now and held at most: tensors, bytes, peak bytes. */
export function memory(): { tensors: number; grids: number; bytes: number; peakBytes: number } {
  const n = native();
  return {
    tensors: n.vx_live_tensors(),
    grids: n.vx_live_grids(),
    bytes: n.vx_live_bytes(),
    peakBytes: n.vx_peak_bytes(),
  };
}
