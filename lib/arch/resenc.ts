/**
 * ResEnc: residual-encoder U-Net with a plain decoder (Isensee et al., "nnU-Net Revisited", 2024; the backbone of S3D,
 * OpenMind and CVA). `resenc-l` has the widths, depths and state-dict names of the published network
 * (102,348,965 parameters for 1 input and 1 output channel); `resenc-s` is the same graph made to train on two cores.
 */
import { recompute } from "../autograd.ts";
import type { Architecture, Network } from "../nn/network.ts";
import type { Parameters } from "../nn/parameters.ts";
import { unetDecoder } from "../nn/unet_decoder.ts";
import { divisible, type Layer, unit } from "../nn/unit.ts";
import { conv3d, upconv3d } from "../ops/conv3d.ts";
import { avgPool2 } from "../ops/pool.ts";
import type { Tensor } from "../tensor.ts";

/** ResNet-D block: the skip is average pooling if strided, then a 1x1x1 projection if the width changes. */
function block(p: Parameters, name: string, cIn: number, cOut: number, stride: 1 | 2, he: boolean): Layer {
  const first = unit(p, `${name}.conv1`, cIn, cOut, { stride, he });
  const second = unit(p, `${name}.conv2`, cOut, cOut, { he, still: he });
  const project = cIn === cOut
    ? null
    : unit(p, `${name}.skip.1`, cIn, cOut, { kernel: 1, plain: true, bias: false, he });
  return (x) =>
    recompute(() => {
      const pooled = stride === 2 ? avgPool2(x) : x;
      const inner = first(x);
      const y = second(inner, project ? project(pooled) : pooled);
      inner.drop();
      return y;
    });
}

/** Plain decoder: per level a transposed convolution, the skip, one unit; only the last head is used. */
function decoder(p: Parameters, features: number[], outputs: number, he: boolean): Network["decode"] {
  const top = features.length - 1;
  const levels = features.slice(1).map((_, j) => {
    const [below, skip] = [features[top - j], features[top - 1 - j]];
    return {
      up: p.affine(`decoder.transpconvs.${j}`, [below, skip, 2, 2, 2], skip * 8, skip, true, he),
      conv: unit(p, `decoder.stages.${j}.convs.0`, 2 * skip, skip, { he }),
      head: p.affine(`decoder.seg_layers.${j}`, [outputs, skip, 1, 1, 1], skip, outputs, true, he),
    };
  });
  const { head } = levels[top - 1];
  return (pyramid, _random, maps) => {
    const x = levels.reduce((x, { up, conv }, j) => {
      const y = recompute(() => conv([upconv3d(x, up.weight, up.bias!), pyramid[top - 1 - j]]));
      x.drop();
      maps?.push(y);
      return y;
    }, pyramid[top]);
    return conv3d(x, head.weight, head.bias);
  };
}

/** A ResEnc of these widths and blocks per stage, full resolution first; `headWidth`: of projector and predictor. */
export function resenc(name: string, features: number[], blocks: number[], headWidth: number): Architecture {
  const levels = features.length;
  return {
    name,
    citation:
      "Isensee et al. 2024, nnU-Net Revisited; Wald et al. 2025, Revisiting MAE pre-training for 3D medical image segmentation",
    stride: 2 ** (levels - 1),
    encoderPrefixes: ["encoder."],
    headWidth,
    recomputes: true,
    light: true,
    inits: true,
    build(p, inputs, outputs, { light = false, init } = {}): Network {
      const he = init === "nnunet";
      const stem = unit(p, "encoder.stem.convs.0", inputs, features[0], { he });
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
              he,
            ),
        )
      );
      return {
        features,
        decoderFeatures: light ? undefined : features.slice(0, -1).reverse(),
        gathers: true,
        encode(x, _visible, _random, gather) {
          const pyramid: Tensor[] = [];
          stages.forEach((stage, s) => {
            x = s === 0 ? stem(x, undefined, gather) : divisible(x);
            stage.forEach((layer, b) => {
              const y = layer(x);
              if (b || !s) x.drop();
              x = y;
            });
            pyramid.push(x);
          });
          return pyramid;
        },
        decode: light ? unetDecoder(p, features, outputs, true) : decoder(p, features, outputs, he),
      };
    },
  };
}

/** Small preset: 7.2 M parameters, trains on two cores. */
export const resencS = resenc("resenc-s", [16, 32, 64, 128, 192], [1, 2, 2, 2, 2], 512);
/** The published network. */
export const resencL = resenc("resenc-l", [32, 64, 128, 256, 320, 320], [1, 3, 4, 6, 6, 6], 2048);
