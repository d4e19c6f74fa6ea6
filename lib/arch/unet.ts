/**
 * The plain U-Nets of AMAES (Munk et al. 2024): five levels of two convolution units, max-pooling in between, no
 * residuals. Pretraining uses the light decoder (`rec_head`), fine-tuning the standard one with skips (`pred_head`).
 * State-dict names and parameter counts are the published ones: 17,879,617 (light) and 22,581,217 for `unet-b`,
 * 71,500,929 and 90,304,449 for `unet-xl`, with 1 input and 1 output channel.
 */
import type { Architecture, Network } from "../nn/network.ts";
import { unetDecoder } from "../nn/unet_decoder.ts";
import { divisible, unit } from "../nn/unit.ts";
import { maxPool2 } from "../ops/maxpool.ts";
import type { Tensor } from "../tensor.ts";

/** A U-Net whose first level has `width` channels. */
export function unet(name: string, width: number, depth = 5): Architecture {
  const features = Array.from({ length: depth }, (_, i) => width * 2 ** i);
  return {
    name,
    citation: "Munk et al. 2024, AMAES: Augmented Masked Autoencoder Pretraining on Public Brain MRI Data",
    stride: 2 ** (depth - 1),
    encoderPrefixes: ["encoder."],
    headWidth: 2048,
    light: true,
    build(p, inputs, outputs, { light = false } = {}): Network {
      const levels = features.map((c, i) => {
        const prefix = i === 0 ? "encoder.in_conv" : `encoder.encoder_conv${i}`;
        return [
          unit(p, `${prefix}.conv1`, i === 0 ? inputs : features[i - 1], c),
          unit(p, `${prefix}.conv2`, c, c),
        ];
      });
      return {
        features,
        encode(x) {
          const pyramid: Tensor[] = [];
          levels.forEach(([first, second], i) => {
            const inner = first(i ? maxPool2(divisible(x)) : x);
            pyramid.push(x = second(inner));
            inner.drop();
          });
          return pyramid;
        },
        decode: unetDecoder(p, features, outputs, light),
      };
    },
  };
}

/** Base width 32. */
export const unetB = unet("unet-b", 32);
/** Base width 64. */
export const unetXl = unet("unet-xl", 64);
