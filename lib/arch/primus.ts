/**
 * Primus: a transformer on tokens of 8^3 voxels (Wald et al. 2025, "Primus: Enforcing attention usage for 3D medical
 * image segmentation"; the ViT backbone of OpenMind and CVA). Widths, depths and state-dict names are those of the
 * published networks; tokens run z, y, x (defects D05, D06 of the nnssl classes do not occur).
 *
 * Parameters: `down_projection.proj` (patch embedding), `eva.*` (trunk), `up_projection.decode.*` (three transposed
 * convolutions); for pretraining `mask_token` and, unless hidden tokens are swapped, `decoder.*` (2 blocks); for the
 * student of CVA `feature_decoder.*` (2 blocks of 16 heads).
 */
import { recompute } from "../autograd.ts";
import type { Architecture, BuildOptions, Network } from "../nn/network.ts";
import type { Parameters } from "../nn/parameters.ts";
import { gelu, swiglu } from "../ops/activation.ts";
import { attention } from "../ops/attention.ts";
import { upconv3d } from "../ops/conv3d.ts";
import { densify, gatherBlocks } from "../ops/densify.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { layerScale } from "../ops/layer_scale.ts";
import { linear } from "../ops/linear.ts";
import { addPositions, patchify, rope } from "../ops/tokens.ts";
import type { Rng } from "../rng.ts";
import { Grid, type Layout, type Side, type Tensor, volume } from "../tensor.ts";

/** Side of a token in voxels. */
const TOKEN = 8;
/** DropPath of the last block in pretraining; it rises linearly from 0 in the first. */
const DROP = 0.2;
/** Heads of the feature decoder, where they divide the width into what RoPE takes; else those of the trunk. */
const FEATURE_HEADS = 16;

type Layer = (x: Tensor, random?: Rng) => Tensor;
/** One block or all of a trunk. With `wanted`, its tokens alone are wanted: they are what the result has. */
type Blocks = (x: Tensor, random?: Rng, wanted?: Grid) => Tensor;

const spread = (std: number) => (rng: Rng) => std * rng.normal();

/** LayerNorm with its parameters. */
function norm(p: Parameters, name: string, width: number, eps?: number): Layer {
  const gamma = p.add(`${name}.weight`, [width], () => 1);
  const beta = p.add(`${name}.bias`, [width], () => 0);
  return (x) => layerNorm(x, gamma, beta, eps);
}

/** Linear layer of a trunk: normal weights, bias 0. */
function dense(p: Parameters, name: string, from: number, to: number, std = 0.02, bias = true): Layer {
  const weight = p.add(`${name}.weight`, [to, from], spread(std));
  const zeros = bias ? p.add(`${name}.bias`, [to], () => 0) : null;
  return (x) => linear(x, weight, zeros);
}

/** The factor of each sample's branch: 0 with probability `drop`, else 1 / (1 - drop); 1 outside training. */
function dropPath(samples: number, drop: number, random?: Rng): Float32Array {
  return Float32Array.from(
    { length: samples },
    () => !random || !drop ? 1 : random.uniform() < drop ? 0 : 1 / (1 - drop),
  );
}

/** Pre-norm block: attention with rotary positions and an inner norm, then SwiGLU with one; both scaled. */
function block(
  p: Parameters,
  name: string,
  width: number,
  heads: number,
  index: number,
  drop: number,
): Blocks {
  const hidden = Math.floor(width * 8 / 3);
  const shrunk = 0.02 / Math.sqrt(2 * (index + 1));
  const gamma1 = p.add(`${name}.gamma_1`, [width], () => 0.1);
  const gamma2 = p.add(`${name}.gamma_2`, [width], () => 0.1);
  const norm1 = norm(p, `${name}.norm1`, width);
  const query = dense(p, `${name}.attn.q_proj`, width, width);
  const key = dense(p, `${name}.attn.k_proj`, width, width, 0.02, false);
  const value = dense(p, `${name}.attn.v_proj`, width, width);
  const inner = norm(p, `${name}.attn.norm`, width);
  const project = dense(p, `${name}.attn.proj`, width, width, shrunk);
  const norm2 = norm(p, `${name}.norm2`, width);
  const gate = dense(p, `${name}.mlp.fc1_g`, width, hidden);
  const open = dense(p, `${name}.mlp.fc1_x`, width, hidden);
  const middle = norm(p, `${name}.mlp.norm`, hidden);
  const close = dense(p, `${name}.mlp.fc2`, hidden, width, shrunk);
  return (x, random, wanted) => {
    const rows = (x: Tensor) => wanted ? gatherBlocks(x, wanted, [1, 1, 1]) : x;
    const [keep1, keep2] = [1, 2].map(() => dropPath(x.space.grid.samples, drop, random));
    return recompute(() => {
      const a = norm1(x);
      using q = query(rows(a)); // no gradient reads its values, nor those of k
      using k = key(a);
      const seen = attention(rope(q, heads), rope(k, heads), value(a), heads);
      const b = inner(seen);
      const y = layerScale(rows(x), project(b), gamma1, keep1);
      const c = norm2(y);
      const wide = swiglu(gate(c), open(c));
      const d = middle(wide);
      const z = layerScale(y, close(d), gamma2, keep2);
      for (const cheap of [a, b, c, wide, d]) cheap.drop();
      return z;
    });
  };
}

/** Position table, blocks, final norm. */
function trunk(
  p: Parameters,
  name: string,
  width: number,
  depth: number,
  heads: number,
  tokens: number,
): Blocks {
  const table = p.add(`${name}.pos_embed`, [1, tokens, width], spread(0.02));
  const blocks = Array.from(
    { length: depth },
    (_, i) => block(p, `${name}.blocks.${i}`, width, heads, i, depth > 1 ? DROP * i / (depth - 1) : 0),
  );
  const last = norm(p, `${name}.norm`, width);
  const final = blocks.length - 1;
  return (x, random, wanted) =>
    last(blocks.reduce(
      (x, layer, i) => layer(x, random, i === final ? wanted : undefined),
      addPositions(x, table),
    ));
}

/** Nearest multiple of 8, half to even, at least 8. */
function round8(x: number): number {
  const eighths = x / 8;
  const down = Math.floor(eighths);
  const odd = eighths - down > 0.5 || (eighths - down === 0.5 && down % 2 === 1);
  return 8 * Math.max(1, down + Number(odd));
}

/** Widths between the transposed convolutions for `outputs` channels (OpenMind's Primus). */
export function decoderWidths(width: number, outputs: number): [number, number] {
  const shrink = Math.cbrt(width / (2 * outputs));
  return [round8(width / shrink), round8(width / shrink ** 2)];
}

/** Three transposed convolutions from tokens to voxels, channel LayerNorm and GELU between. */
function upProjection(p: Parameters, width: number, outputs: number, he: boolean): Layer {
  const widths = [width, ...decoderWidths(width, outputs), outputs];
  const layers = widths.slice(1).map((out, i): Layer => {
    const name = `up_projection.decode.${i}`;
    const conv = i < 2 ? `${name}.0` : name;
    const shape = [widths[i], out, 2, 2, 2];
    const { weight, bias } = p.affine(conv, shape, 8 * out, out, true, he);
    const scaled = i < 2 ? norm(p, `${name}.1`, out, 1e-6) : null;
    return (x) => scaled ? gelu(scaled(upconv3d(x, weight, bias!))) : upconv3d(x, weight, bias!);
  });
  return (x) => layers.reduce((x, layer) => layer(x), x);
}

/** A Primus of this width, for tests of any size. @throws Error without a patch */
export function primus(name: string, width: number, depth: number, heads: number): Architecture {
  return {
    name,
    citation: "Wald et al. 2025, Primus: Enforcing attention usage for 3D medical image segmentation",
    kind: "token",
    recomputes: true,
    stride: TOKEN,
    encoderPrefixes: ["eva.", "down_projection."],
    headWidth: width < 512 ? 512 : 2048,
    preset: "vit",
    build(p: Parameters, inputs: number, outputs: number, options: BuildOptions = {}): Network {
      const { patch, hidden, featureDecoder } = options;
      if (!patch) throw new Error(`${name} is built for one patch`);
      const dims = patch.map((s) => s / TOKEN) as unknown as Side;
      const tokens = volume(dims);
      const embed = p.affine(
        "down_projection.proj",
        [width, inputs, TOKEN, TOKEN, TOKEN],
        inputs * TOKEN ** 3,
        width,
        true,
        true,
      );
      const eva = trunk(p, "eva", width, depth, heads, tokens);
      const mask = hidden ? p.add("mask_token", [1, 1, width], spread(1e-6)) : null;
      const refine = hidden === "drop" ? trunk(p, "decoder", width, 2, heads, tokens) : null;
      const featureHeads = width % (6 * FEATURE_HEADS) ? heads : FEATURE_HEADS;
      const features = featureDecoder ? trunk(p, "feature_decoder", width, 2, featureHeads, tokens) : null;
      const up = upProjection(p, width, outputs, !hidden);
      const place = (x: Tensor, layout: Layout) =>
        linear(patchify(x, layout, TOKEN), embed.weight, embed.bias);
      return {
        features: [width],
        token: TOKEN,
        encode(x, visible, random) {
          const { samples } = x.space.grid;
          const layout = visible
            ? { grid: new Grid(samples, dims, visible), side: [1, 1, 1] as const }
            : { grid: x.space.grid, side: dims };
          const kept = place(x, layout);
          if (!visible) return [eva(kept, random)];
          if (!mask) throw new Error(`${name} was built for no hidden tokens`);
          return [hidden === "swap" ? eva(densify(kept, mask), random) : densify(eva(kept, random), mask)];
        },
        decoderFeatures: refine ? [width] : undefined,
        decode([x], random, maps, wanted) {
          if (!refine) return up(x);
          const { grid } = x.space;
          if (wanted && !maps) {
            return up(densify(refine(x, random, new Grid(grid.samples, dims, wanted)), null, grid));
          }
          const refined = refine(x, random);
          maps?.push(refined);
          return up(refined);
        },
        featureDecoder: features ? ([x], random) => features(x, random) : undefined,
      };
    },
  };
}

/** 26,268,285 parameters for 1 input, 1 output and 160^3. */
export const primusS = primus("primus-s", 396, 12, 6);
/** 97,958,065 parameters. */
export const primusB = primus("primus-b", 792, 12, 12);
/** 151,786,529 parameters: the published backbone. */
export const primusM = primus("primus-m", 864, 16, 12);
/** 331,823,761 parameters. */
export const primusL = primus("primus-l", 1056, 24, 16);
