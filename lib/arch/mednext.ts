/**
 * MedNeXt as AMAES trains it (Roy et al. 2023; Munk et al. 2024): five levels of depthwise convolution, norm over each
 * channel, expansion, GELU, projection and residual sum. Light decoder (`rec_head`, no skips) for pretraining,
 * standard U-Net decoder (`pred_head`) for everything else; the `native` networks have MedNeXt's own. State-dict names
 * and parameter counts are the published ones: 16,236,385 (light) and 20,937,985 for `mednext-m`, 50,496,993 and
 * 55,198,593 for `mednext-l`.
 */
import type { Architecture, Network } from "../nn/network.ts";
import type { Parameters } from "../nn/parameters.ts";
import { unetDecoder } from "../nn/unet_decoder.ts";
import { divisible } from "../nn/unit.ts";
import { depthwise3d, depthwiseUp3d } from "../ops/depthwise.ts";
import { add } from "../ops/elementwise.ts";
import { gelu } from "../ops/activation.ts";
import { gatherRows, plan, type Rows, transpose } from "../ops/gather.ts";
import { lattice, place } from "../ops/lattice.ts";
import { linear } from "../ops/linear.ts";
import { instanceNorm } from "../ops/norm.ts";
import type { Side, Tensor } from "../tensor.ts";

/** Blocks and expansion of each level. */
interface Depths {
  blocks: readonly number[];
  ratios: readonly number[];
}

function pointwise(p: Parameters, name: string, cIn: number, cOut: number): (x: Tensor) => Tensor {
  const { weight, bias } = p.affine(name, [cOut, cIn, 1, 1, 1], cIn, cOut);
  return (x) => linear(x, weight, bias);
}

/** `cIn` -> `cOut` channels; with stride 2 a block that halves the sides and has a strided 1x1x1 shortcut. */
function block(
  p: Parameters,
  name: string,
  cIn: number,
  cOut: number,
  ratio: number,
  stride: 1 | 2 = 1,
): (x: Tensor) => Tensor {
  const depthwise = p.affine(`${name}.conv1`, [cIn, 1, 3, 3, 3], 27, cIn);
  const gamma = p.add(`${name}.norm.weight`, [cIn], () => 1);
  const beta = p.add(`${name}.norm.bias`, [cIn], () => 0);
  const expand = pointwise(p, `${name}.conv2`, cIn, ratio * cIn);
  const project = pointwise(p, `${name}.conv3`, ratio * cIn, cOut);
  const shortcut = stride === 2 ? pointwise(p, `${name}.res_conv`, cIn, cOut) : null;
  return (x) => {
    const mixed = instanceNorm(depthwise3d(x, depthwise.weight, depthwise.bias!, stride), gamma, beta);
    return add(project(gelu(expand(mixed))), shortcut ? shortcut(lattice(x, [0])) : x);
  };
}

/** Doubles the sides and halves the channels; the plane at the low end of each axis is zero (A11). */
function up(p: Parameters, name: string, c: number, ratio: number): (x: Tensor) => Tensor {
  const half = c / 2;
  const depthwise = p.affine(`${name}.conv1`, [c, 1, 3, 3, 3], 27, c);
  const gamma = p.add(`${name}.norm.weight`, [c], () => 1);
  const beta = p.add(`${name}.norm.bias`, [c], () => 0);
  const expand = pointwise(p, `${name}.conv2`, c, ratio * c);
  const project = p.affine(`${name}.conv3`, [half, ratio * c, 1, 1, 1], ratio * c, half);
  const shortcut = p.affine(`${name}.res_conv`, [c, half, 1, 1, 1], half, half);
  return (x) => {
    const { grid, side } = x.space;
    const mixed = instanceNorm(depthwiseUp3d(x, depthwise.weight, depthwise.bias!), gamma, beta);
    // Both branches have their bias everywhere but on the low planes.
    const fine = linear(gelu(expand(mixed)), project.weight, add(project.bias!, shortcut.bias!));
    const full = side.map((s) => 2 * s) as unknown as Side;
    const padded = gatherRows(fine, lowPlanes(grid.samples, full), { grid, side: full });
    return add(padded, place(linear(x, transpose(shortcut.weight)), 7));
  };
}

/** The plan that puts volumes of sides n - 1 into volumes of sides n, at the high end. */
function lowPlanes(samples: number, [sz, sy, sx]: Side): Rows {
  const index = new Int32Array(samples * sz * sy * sx).fill(-1);
  let next = 0;
  for (let i = 0; i < index.length; i++) {
    const [z, y, x] = [Math.floor(i / (sy * sx)) % sz, Math.floor(i / sx) % sy, i % sx];
    if (z && y && x) index[i] = next++;
  }
  return plan(index, next);
}

/** The decoder of MedNeXt itself: up, the sum with the skip, blocks; a transposed 1x1x1 convolution at the end. */
function ownDecoder(p: Parameters, features: readonly number[], outputs: number, { blocks, ratios }: Depths) {
  const levels = features.slice(0, -1).map((c, i) => ({
    up: up(p, `pred_head.up_${i}`, 2 * c, ratios[i]),
    blocks: Array.from(
      { length: blocks[i] },
      (_, b) => block(p, `pred_head.dec_block_${i}.${b}`, c, c, ratios[i]),
    ),
  }));
  const [c] = features;
  const head = p.affine("pred_head.out_0.conv_out", [c, outputs, 1, 1, 1], outputs, outputs);
  return (pyramid: Tensor[]) => {
    const x = levels.reduceRight(
      (x, level, i) => level.blocks.reduce((x, layer) => layer(x), add(pyramid[i], level.up(x))),
      pyramid[levels.length],
    );
    return linear(x, transpose(head.weight), head.bias);
  };
}

/** A MedNeXt whose first level has `width` channels; `own`: with the decoder of MedNeXt instead of the U-Net's. */
export function mednext(name: string, width: number, depths: Depths, own = false): Architecture {
  const { blocks, ratios } = depths;
  const levels = blocks.length;
  const features = blocks.map((_, i) => width * 2 ** i);
  return {
    name,
    citation:
      "Roy et al. 2023, MedNeXt; Munk et al. 2024, AMAES: Augmented Masked Autoencoder Pretraining on Public Brain MRI Data",
    stride: 2 ** (levels - 1),
    encoderPrefixes: ["encoder."],
    headWidth: 2048,
    light: true,
    build(p, inputs, outputs, { light = false } = {}): Network {
      const stem = pointwise(p, "encoder.stem", inputs, width);
      const stages = features.map((c, i) => {
        const stage = i === levels - 1 ? "bottleneck" : `enc_block_${i}`;
        const down = i ? [block(p, `encoder.down_${i - 1}`, c / 2, c, ratios[i], 2)] : [];
        const rest = Array.from(
          { length: blocks[i] },
          (_, b) => block(p, `encoder.${stage}.${b}`, c, c, ratios[i]),
        );
        return [...down, ...rest];
      });
      return {
        features,
        encode(x) {
          const pyramid: Tensor[] = [];
          stages.forEach((stage, i) => {
            x = stage.reduce((x, layer) => layer(x), i ? divisible(x) : stem(x));
            pyramid.push(x);
          });
          return pyramid;
        },
        decode: own && !light
          ? ownDecoder(p, features, outputs, depths)
          : unetDecoder(p, features, outputs, light),
      };
    },
  };
}

const M: Depths = { blocks: [3, 4, 4, 4, 4], ratios: [2, 3, 4, 4, 4] };
const L: Depths = { blocks: [3, 4, 8, 8, 8], ratios: [3, 4, 8, 8, 8] };

/** The published M and L. */
export const mednextM: Architecture = mednext("mednext-m", 32, M);
export const mednextL: Architecture = mednext("mednext-l", 32, L);
/** The same with the decoder of MedNeXt: the L of 62 M parameters that AMAES trains from scratch. */
export const mednextMNative: Architecture = mednext("mednext-m-native", 32, M, true);
export const mednextLNative: Architecture = mednext("mednext-l-native", 32, L, true);
