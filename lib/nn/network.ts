/** What an architecture file offers and what it builds. */
import { UsageError } from "../errors.ts";
import type { Side, Tensor } from "../tensor.ts";
import type { Rng } from "../rng.ts";
import type { PresetName } from "../train/presets.ts";
import type { Parameters } from "./parameters.ts";

/** What the features of a network lie on. */
export type Kind = "cnn" | "token";

/** A built network: an encoder that gives a pyramid and a decoder that gives voxels. */
export interface Network {
  /** Channels of each level of the pyramid, full resolution first. */
  readonly features: readonly number[];
  /** Side of a token in voxels: only networks on tokens have it, and mask whole tokens. */
  readonly token?: number;
  /**
   * Pyramid of `x`, full resolution first. On a CNN `x` may lie on a grid of visible blocks: nothing else is computed.
   * On a token network the pyramid has one level, the token grid; `visible` (one byte per token, `[sample][z][y][x]`)
   * drops the hidden tokens before the first block and refills them with the mask token after the last.
   * `random` is what training draws from (DropPath); without it (teacher, evaluation) nothing is drawn.
   */
  encode(x: Tensor, visible?: Uint8Array, random?: Rng, gather?: (x: Tensor) => Tensor): Tensor[];
  /** `encode` passes what leaves its first convolution through `gather` (the published S3D, defect D04). */
  readonly gathers?: true;
  /**
   * Voxels `[n][z][y][x][outputs]` from a dense pyramid; `random` as in `encode`. `maps` receives the features on the
   * way, of `decoderFeatures` channels: a map per level of a CNN's decoder, the token grid after a token decoder.
   * `wanted` (one byte per token, as `visible`) says whose voxels are read: a token decoder makes no others, and what it
   * has in their place means nothing.
   */
  decode(pyramid: Tensor[], random?: Rng, maps?: Tensor[], wanted?: Uint8Array): Tensor;
  /** Channels of the decoder's maps, where `decode` offers them. */
  readonly decoderFeatures?: readonly number[];
  /**
   * Token networks built with `featureDecoder`: the pyramid after two more blocks, `[n][z/8][y/8][x/8][c]`: what the
   * student of CVA aligns with the teacher's plain encoder output (LatentCampus).
   */
  featureDecoder?(pyramid: Tensor[], random?: Rng): Tensor;
}

/** What a method asks of the network that it trains; fine-tuning and teachers ask for `patch` alone. */
export interface BuildOptions {
  /** Sides of the input: networks with a position table are built for one. */
  patch?: Side;
  /**
   * Token networks, what becomes of hidden tokens. `drop` (MAE): the encoder never sees them, `mask_token` refills their
   * places, and `decode` starts with the 2-block `decoder`. `swap` (SimMIM): `mask_token` takes their place before the
   * position table, and there is no `decoder`. Absent: neither exists.
   */
  hidden?: "drop" | "swap";
  /** Token networks: makes `feature_decoder.*` and with it `Network.featureDecoder`. */
  featureDecoder?: boolean;
  /**
   * Initial values of a ResEnc: `nnunet` is He for every convolution, and the second norm of every block (weight and bias)
   * starts at 0, so that a block starts as its skip (nnU-Net). Absent: PyTorch's defaults, with
   * which the pretraining networks were made.
   */
  init?: "nnunet";
  /** The light decoder of AMAES, with no skips, instead of the network's own. */
  light?: boolean;
}

/** One file of `lib/arch`. */
export interface Architecture {
  readonly name: string;
  readonly citation: string;
  /** Absent: a CNN. */
  readonly kind?: Kind;
  /** Encodes whole volumes only, no lists of visible blocks. */
  readonly whole?: true;
  /** The sides of a patch must be multiples of this. */
  readonly stride: number;
  /** Names of encoder parameters begin with one of these: what is transferred to fine-tuning. */
  readonly encoderPrefixes: readonly string[];
  /** Width of projector and predictor that the contrastive methods put on this network. */
  readonly headWidth: number;
  /** The network builds a light decoder when asked. */
  readonly light?: true;
  /** It is built with the initial values of nnU-Net when asked (`init`). */
  readonly inits?: true;
  /** Its blocks may be computed again in the backward pass instead of kept (`recompute` of lib/autograd.ts). */
  readonly recomputes?: true;
  /** Optimizer, learning rate and warm-up of pretraining; absent: `cnn`. */
  readonly preset?: PresetName;
  build(parameters: Parameters, inputs: number, outputs: number, options?: BuildOptions): Network;
}

/** Every side must be a multiple of the stride, and a CNN needs two voxels in its deepest level, which is normalised. */
function takes({ kind, stride }: Architecture, patch: Side): boolean {
  return patch.every((p) => p % stride === 0) && (kind === "token" || patch.some((p) => p > stride));
}

/** @throws UsageError for a patch that the network cannot take, naming the nearest ones that it can */
export function checkPatch(arch: Architecture, patch: Side): void {
  if (takes(arch, patch)) return;
  const { name, kind, stride } = arch;
  const rule = kind === "token" ? "" : `, one of them at least ${2 * stride}`;
  const to = (round: (v: number) => number, least: number) =>
    patch.map((p) => Math.max(least, round(p / stride) * stride)) as unknown as Side;
  const near = [to(Math.floor, stride), to(Math.ceil, stride), to(Math.ceil, 2 * stride)];
  const fit = near.filter((side) => takes(arch, side)).map((side) => side.join("x"));
  throw new UsageError(
    `--patch ${patch.join("x")} does not fit ${name}: sides must be multiples of ${stride}${rule}; try ${
      [...new Set(fit.slice(0, 2))].join(" or ")
    }`,
  );
}
