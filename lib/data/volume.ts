/** Volume preparation in native code: NIfTI bytes -> RAS, cropped, normalised, 1 mm float16 voxels. */
import { UserError } from "../errors.ts";
import { native } from "../native/library.ts";

/** Named preparations, in the numbering of `vx_volume_prepare_wait`. */
export const RECIPES = ["onemmiso", "amaes"] as const;
/** `onemmiso`: nnssl, S3D, OpenMind, CVA. `amaes`: Yucca, AMAES, FOMO. */
export type Recipe = typeof RECIPES[number];

type Triple = [number, number, number];

/** A prepared volume. Triples are z, y, x. */
export interface PreparedVolume {
  shape: Triple;
  /** 4x4: voxel (x, y, z) centre -> RAS mm. */
  affine: number[][];
  /** float16 bits [z, y, x]. */
  bits: Uint16Array;
  /** What it was made from, turned to RAS: size, voxel size in mm. */
  source: { shape: Triple; spacing: Triple };
  /** The crop: voxels [low, high) of the source. */
  box: { low: Triple; high: Triple };
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

  /**
   * Prepares one of the volumes.
   * @throws UserError for NaN or infinity, a constant volume, a spacing that would explode; without the file's name
   */
  async prepare(recipe: Recipe, channel = 0): Promise<PreparedVolume> {
    const lib = native();
    const info = new Float64Array(INFO);
    const volume = await lib.vx_volume_prepare_wait(
      this.handle,
      channel,
      RECIPES.indexOf(recipe),
      this.limit,
      info,
      INFO,
    );
    try {
      const triple = (at: number) => [...info.subarray(at, at + 3)] as Triple;
      const shape = triple(0);
      const bits = new Uint16Array(shape[0] * shape[1] * shape[2]);
      await lib.vx_volume_half_wait(volume, bits, bits.length);
      return {
        shape,
        affine: [3, 7, 11, 15].map((at) => [...info.subarray(at, at + 4)]),
        bits,
        source: { shape: triple(19), spacing: triple(22) },
        box: { low: triple(25), high: triple(28) },
        statistics: { mean: info[31], std: info[32], min: info[33], max: info[34] },
      };
    } finally {
      lib.vx_volume_free(volume);
    }
  }

  [Symbol.dispose](): void {
    native().vx_nifti_free(this.handle);
  }
}
