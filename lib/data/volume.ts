/** Volume preparation in native code: NIfTI bytes -> RAS, cropped, normalised, 1 mm float16 voxels. */
import { UserError } from "../errors.ts";
import { native } from "../native/library.ts";

/** Named preparations, in the numbering of `vx_volume_prepare_wait`. */
export const RECIPES = ["onemmiso", "amaes"] as const;
/** `onemmiso`: nnssl, S3D, OpenMind, CVA. `amaes`: Yucca, AMAES, FOMO. */
export type Recipe = typeof RECIPES[number];

type Triple = [number, number, number];

/** Voxels [low, high) along z, y, x of a source turned to RAS. */
export interface Box {
  low: Triple;
  high: Triple;
}

/** A prepared volume. Triples are z, y, x. */
export interface PreparedVolume {
  shape: Triple;
  /** 4x4: voxel (x, y, z) centre -> RAS mm. */
  affine: number[][];
  /** What it was made from, turned to RAS: size, voxel size in mm. */
  source: { shape: Triple; spacing: Triple };
  /** The crop. */
  box: Box;
  /** Of the source inside the box, before normalisation. */
  statistics: { mean: number; std: number; min: number; max: number };
}

const INFO = 35;

/** A decoded NIfTI file in native memory; free it with `using`. */
export class NiftiFile implements Disposable {
  private constructor(
    private readonly handle: number,
    /** Volumes in the file: 1, or the product of the axes beyond the third. */
    readonly channels: number,
    private readonly limit: number,
  ) {}

  /**
   * Decodes a file, plain or gzip by content, NIfTI-1 or 2; `image` holds the `.img` of a pair.
   * @throws UserError for a file that is not read, without its name
   */
  static async decode(bytes: Uint8Array, image?: Uint8Array): Promise<NiftiFile> {
    const size = bytes.length + (image?.length ?? 0);
    if (size > 2 ** 32 - 1) throw new UserError("the file has over 4 GiB; crop it or split it");
    const channels = new Uint32Array(1);
    const picture = image ?? new Uint8Array(0);
    const handle = await native().vx_nifti_decode_wait(
      bytes,
      bytes.length,
      picture,
      picture.length,
      channels,
      1,
    );
    // A small file that claims thick voxels must not become a large volume: 2048 voxels per byte, 2 M for any file.
    return new NiftiFile(handle, channels[0], 2048 * size + 2 ** 21);
  }

  /** The box that a recipe crops the first volume to; undefined where it has no voxel to keep. @throws as `prepare` */
  async bounds(recipe: Recipe): Promise<Box | undefined> {
    const six = new Uint32Array(6);
    await native().vx_volume_bounds_wait(this.handle, 0, RECIPES.indexOf(recipe), six, 6);
    const triple = (at: number) => [...six.subarray(at, at + 3)] as Triple;
    return six[3] ? { low: triple(0), high: triple(3) } : undefined;
  }

  /**
   * Prepares one of the volumes, as float16 bits [z, y, x].
   * @throws UserError for NaN or infinity, no voxel to keep, a spacing that would explode; without the file's name
   */
  prepare(recipe: Recipe, channel = 0): Promise<PreparedVolume & { bits: Uint16Array }> {
    return this.#prepare(recipe, channel, undefined, async (handle, length) => {
      const bits = new Uint16Array(length);
      await native().vx_volume_half_wait(handle, bits, length);
      return { bits };
    });
  }

  /**
   * Prepares the first volume within a box (default: the recipe's own), as float32 [z, y, x].
   * @throws as `prepare`
   */
  values(recipe: Recipe, within?: Box): Promise<PreparedVolume & { values: Float32Array }> {
    return this.#prepare(recipe, 0, within, async (handle, length) => {
      const values = new Float32Array(length);
      await native().vx_volume_read_wait(handle, values, length);
      return { values };
    });
  }

  async #prepare<T>(
    recipe: Recipe,
    channel: number,
    within: Box | undefined,
    read: (handle: number, length: number) => Promise<T>,
  ): Promise<PreparedVolume & T> {
    const lib = native();
    const info = new Float64Array(INFO);
    const box = Uint32Array.from(within ? [...within.low, ...within.high] : []);
    const volume = await lib.vx_volume_prepare_wait(
      this.handle,
      channel,
      RECIPES.indexOf(recipe),
      box,
      box.length,
      this.limit,
      info,
      INFO,
    );
    try {
      const triple = (at: number) => [...info.subarray(at, at + 3)] as Triple;
      const shape = triple(0);
      return {
        shape,
        affine: [3, 7, 11, 15].map((at) => [...info.subarray(at, at + 4)]),
        source: { shape: triple(19), spacing: triple(22) },
        box: { low: triple(25), high: triple(28) },
        statistics: { mean: info[31], std: info[32], min: info[33], max: info[34] },
        ...await read(volume, shape[0] * shape[1] * shape[2]),
      };
    } finally {
      lib.vx_volume_free(volume);
    }
  }

  [Symbol.dispose](): void {
    native().vx_nifti_free(this.handle);
  }
}
