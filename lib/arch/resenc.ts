/**
 * ResEnc: residual-encoder U-Net with a plain decoder (Isensee et al., "nnU-Net Revisited", 2024; the backbone of S3D,
 * OpenMind and CVA). `resenc-l` has the widths, depths and state-dict names of the published network
 * (102,348,965 parameters for 1 input and 1 output channel); `resenc-s` is the same graph made to train on two cores.
 */
import type { Architecture, Network } from "../nn/network.ts";
import type { Parameters } from "../nn/parameters.ts";
import { concat } from "../ops/concat.ts";
import { conv3d, upconv3d } from "../ops/conv3d.ts";
import { densify } from "../ops/densify.ts";
import { instanceNorm } from "../ops/norm.ts";
import { avgPool2 } from "../ops/pool.ts";
import { Grid, type Tensor } from "../tensor.ts";

const SLOPE = 0.01;

type Layer = (x: Tensor, residual?: Tensor) => Tensor;

/** Convolution, instance norm and, unless `plain`, LeakyReLU; a residual is added before the activation. */
function unit(
  p: Parameters,
  name: string,
  cIn: number,
  cOut: number,
  o: { kernel?: 1 | 3; stride?: 1 | 2; plain?: boolean; bias?: boolean } = {},
): Layer {
  const { kernel = 3, stride = 1, plain = false, bias = true } = o;
  const conv = p.affine(`${name}.conv`, [cOut, cIn, kernel, kernel, kernel], cIn * kernel ** 3, cOut, bias);
  const gamma = p.add(`${name}.norm.weight`, [cOut], () => 1);
  const beta = p.add(`${name}.norm.bias`, [cOut], () => 0);
  return (x, residual) =>
    instanceNorm(
      conv3d(x, conv.weight, conv.bias, stride),
      gamma,
      beta,
      plain ? {} : { residual, slope: SLOPE },
    );
}

/** ResNet-D block: the skip is average pooling if strided, then a 1x1x1 projection if the width changes. */
function block(p: Parameters, name: string, cIn: number, cOut: number, stride: 1 | 2): Layer {
  const first = unit(p, `${name}.conv1`, cIn, cOut, { stride });
  const second = unit(p, `${name}.conv2`, cOut, cOut);
  const project = cIn === cOut
    ? null
    : unit(p, `${name}.skip.1`, cIn, cOut, { kernel: 1, plain: true, bias: false });
  return (x) => {
    const pooled = stride === 2 ? avgPool2(x) : x;
    return second(first(x), project ? project(pooled) : pooled);
  };
}

/** A masked tensor whose blocks are one voxel wide cannot be halved: from there on the network is dense. */
function divisible(x: Tensor): Tensor {
  const { grid, side } = x.space;
  return side.every((s) => s % 2 === 0) ? x : densify(x, null, Grid.dense(grid.samples));
}

function resenc(name: string, features: number[], blocks: number[], headWidth: number): Architecture {
  const levels = features.length;
  return {
    name,
    citation:
      "Isensee et al. 2024, nnU-Net Revisited; Wald et al. 2025, Revisiting MAE pre-training for 3D medical image segmentation",
    stride: 2 ** (levels - 1),
    encoderPrefixes: ["encoder."],
    headWidth,
    build(p: Parameters, inputs: number, outputs: number): Network {
      const stem = unit(p, "encoder.stem.convs.0", inputs, features[0]);
      const stages = features.map((c, s) =>
        Array.from(
          { length: blocks[s] },
          (_, b) =>
            block(
              p,
              `encoder.stages.${s}.blocks.${b}`,
              b ? c : features[Math.max(0, s - 1)],
              c,
              s && !b ? 2 : 1,
            ),
        )
      );
      const ups: ReturnType<Parameters["affine"]>[] = [];
      const convs: Layer[] = [];
      const heads: ReturnType<Parameters["affine"]>[] = [];
      for (let j = 0; j < levels - 1; j++) {
        const [below, skip] = [features[levels - 1 - j], features[levels - 2 - j]];
        ups.push(p.affine(`decoder.transpconvs.${j}`, [below, skip, 2, 2, 2], skip * 8, skip));
        convs.push(unit(p, `decoder.stages.${j}.convs.0`, 2 * skip, skip));
        heads.push(p.affine(`decoder.seg_layers.${j}`, [outputs, skip, 1, 1, 1], skip, outputs));
      }
      return {
        features,
        encode(x) {
          const pyramid: Tensor[] = [];
          stages.forEach((stage, s) => {
            x = s === 0 ? stem(x) : divisible(x);
            for (const layer of stage) x = layer(x);
            pyramid.push(x);
          });
          return pyramid;
        },
        decode(pyramid) {
          let x = pyramid[levels - 1];
          ups.forEach((up, j) =>
            x = convs[j](concat(upconv3d(x, up.weight, up.bias!), pyramid[levels - 2 - j]))
          );
          return conv3d(x, heads[levels - 2].weight, heads[levels - 2].bias);
        },
      };
    },
  };
}

/** Small preset: 7.2 M parameters, trains on two cores. */
export const resencS = resenc("resenc-s", [16, 32, 64, 128, 192], [1, 2, 2, 2, 2], 512);
/** The published network. */
export const resencL = resenc("resenc-l", [32, 64, 128, 256, 320, 320], [1, 3, 4, 6, 6, 6], 2048);
