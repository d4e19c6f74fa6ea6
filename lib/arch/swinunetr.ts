/**
 * SwinUNETR (Hatamizadeh et al. 2022; Tang et al. 2022) with the topology, names and parameter count (62,186,659 for 1
 * input and 1 output channel) of MONAI 1.5: a Swin transformer of four stages whose hidden states, each through a
 * residual convolution block, are the skips of a convolutional decoder.
 */
import type { Architecture, Network } from "../nn/network.ts";
import type { Parameters } from "../nn/parameters.ts";
import { windows } from "../nn/windows.ts";
import { concat } from "../ops/concat.ts";
import { conv3d, upconv3d } from "../ops/conv3d.ts";
import { add } from "../ops/elementwise.ts";
import { back, gatherRows } from "../ops/gather.ts";
import { gelu } from "../ops/activation.ts";
import { CELL, lattice } from "../ops/lattice.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { linear } from "../ops/linear.ts";
import { instanceNorm } from "../ops/norm.ts";
import { windowAttention } from "../ops/window_attention.ts";
import { Tensor } from "../tensor.ts";

const SLOPE = 0.01;

/** Order of the sub-lattices in patch merging, offsets as 4 z + 2 y + x: it changed between MONAI 1.4 and 1.5. */
export const MERGE = { monai15: [0, 4, 2, 1, 6, 5, 3, 7], legacy: [0, 4, 2, 1, 5, 2, 1, 7] } as const;

/** What a SwinUNETR is made of. */
interface Design {
  /** Channels of the first stage. */
  width: number;
  /** Heads of each stage; a stage is two blocks. */
  heads: readonly number[];
  /** Edge of a window. */
  edge: number;
  merge?: readonly number[];
}

type Layer = (x: Tensor) => Tensor;

function dense(p: Parameters, name: string, cIn: number, cOut: number, bias = true): Layer {
  const layer = p.affine(name, [cOut, cIn], cIn, cOut, bias);
  return (x) => linear(x, layer.weight, layer.bias);
}

function norm(p: Parameters, name: string, c: number): Layer {
  const gamma = p.add(`${name}.weight`, [c], () => 1);
  const beta = p.add(`${name}.bias`, [c], () => 0);
  return (x) => layerNorm(x, gamma, beta);
}

/** Layer norm over the channels of a hidden state, without parameters. */
function plainNorm(x: Tensor): Tensor {
  return layerNorm(x, Tensor.full(1, 1, x.channels), Tensor.full(0, 1, x.channels));
}

/** Attention in windows shifted by `shift`, then the MLP, each on a layer norm and added. */
function block(p: Parameters, name: string, c: number, heads: number, edge: number, shift: number): Layer {
  const norm1 = norm(p, `${name}.norm1`, c);
  const table = p.add(
    `${name}.attn.relative_position_bias_table`,
    [(2 * edge - 1) ** 3, heads],
    (rng) => 0.02 * rng.normal(),
  );
  const qkv = dense(p, `${name}.attn.qkv`, c, 3 * c);
  const project = dense(p, `${name}.attn.proj`, c, c);
  const norm2 = norm(p, `${name}.norm2`, c);
  const widen = dense(p, `${name}.mlp.linear1`, c, 4 * c);
  const narrow = dense(p, `${name}.mlp.linear2`, 4 * c, c);
  return (x) => {
    const { grid, side } = x.space;
    const { rows, tokens, regions } = windows(grid.samples, side, edge, shift);
    const inside = qkv(gatherRows(norm1(x), rows));
    const seen = project(windowAttention(inside, table, tokens, edge, regions));
    const mixed = add(x, gatherRows(seen, back(rows), x.layout));
    return add(mixed, narrow(gelu(widen(norm2(mixed)))));
  };
}

/** Two blocks, the second with shifted windows, then patch merging: sides halve, channels double. */
function stage(p: Parameters, name: string, c: number, heads: number, { edge, merge }: Design): Layer {
  const order = merge ?? MERGE.monai15;
  const blocks = [0, Math.floor(edge / 2)].map((shift, b) =>
    block(p, `${name}.blocks.${b}`, c, heads, edge, shift)
  );
  const reduce = dense(p, `${name}.downsample.reduction`, 8 * c, 2 * c, false);
  const merged = norm(p, `${name}.downsample.norm`, 8 * c);
  return (x) => reduce(merged(lattice(blocks.reduce((x, layer) => layer(x), x), order)));
}

/** Two 3x3x3 convolutions with a residual; norms have no parameters, convolutions no bias. */
function residual(p: Parameters, name: string, cIn: number, cOut: number): Layer {
  const conv = (i: number, from: number, k: 1 | 3) =>
    p.affine(`${name}.conv${i}.conv`, [cOut, from, k, k, k], from * k ** 3, cOut, false).weight;
  const first = conv(1, cIn, 3);
  const second = conv(2, cOut, 3);
  const third = cIn === cOut ? null : conv(3, cIn, 1);
  return (x) => {
    const inner = instanceNorm(conv3d(x, first, null), null, null, { slope: SLOPE });
    const skip = third ? instanceNorm(conv3d(x, third, null), null, null) : x;
    return instanceNorm(conv3d(inner, second, null), null, null, { residual: skip, slope: SLOPE });
  };
}

/** A SwinUNETR with as many stages as `heads` has entries. */
export function swinunetr(name: string, design: Design): Architecture {
  const { width, heads } = design;
  const stages = heads.length;
  const hidden = Array.from({ length: stages + 1 }, (_, i) => width * 2 ** i);
  const features = [width, ...hidden];
  return {
    name,
    whole: true,
    citation:
      "Hatamizadeh et al. 2022, Swin UNETR; Tang et al. 2022, Self-Supervised Pre-Training of Swin Transformers for 3D Medical Image Analysis",
    stride: 2 ** (stages + 1),
    encoderPrefixes: ["swinViT.", "encoder"],
    headWidth: 2048,
    preset: "vit",
    build(p, inputs, outputs): Network {
      const embed = p.affine("swinViT.patch_embed.proj", [width, inputs, 2, 2, 2], 8 * inputs, width);
      const layers = heads.map((h, i) => stage(p, `swinViT.layers${i + 1}.0`, hidden[i], h, design));
      const first = residual(p, "encoder1.layer", inputs, width);
      // The last hidden state but one is a skip as it is.
      const skips = hidden.map((c, i) =>
        i === stages - 1 ? null : residual(p, `encoder${i === stages ? 10 : i + 2}.layer`, c, c)
      );
      const decoders = features.slice(0, -1).map((c, level) => {
        const below = features[level + 1];
        const up = p.affine(
          `decoder${level + 1}.transp_conv.conv`,
          [below, c, 2, 2, 2],
          8 * c,
          c,
          false,
        );
        const join = residual(p, `decoder${level + 1}.conv_block`, 2 * c, c);
        return (x: Tensor, skip: Tensor) => join(concat(upconv3d(x, up.weight, Tensor.full(0, 1, c)), skip));
      });
      const head = p.affine("out.conv.conv", [outputs, width, 1, 1, 1], width, outputs);
      return {
        features,
        encode(x) {
          const states = [linear(lattice(x, CELL, true), embed.weight, embed.bias)];
          for (const layer of layers) states.push(layer(states[states.length - 1]));
          return [first(x), ...states.map((h, i) => (skips[i] ?? ((h) => h))(plainNorm(h)))];
        },
        decode(pyramid) {
          const x = decoders.reduceRight(
            (x, decoder, level) => decoder(x, pyramid[level]),
            pyramid[stages + 1],
          );
          return conv3d(x, head.weight, head.bias);
        },
      };
    },
  };
}

/** Feature size 48, as in the AMAES comparison. */
export const swinUnetr: Architecture = swinunetr("swinunetr", { width: 48, heads: [3, 6, 12, 24], edge: 7 });
