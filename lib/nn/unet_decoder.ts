/** The decoders of AMAES (Munk et al. 2024): light for pretraining, standard for everything else. */
import { conv3d, upconv3d } from "../ops/conv3d.ts";
import type { Tensor } from "../tensor.ts";
import type { Parameters } from "./parameters.ts";
import { unit } from "./unit.ts";

/**
 * From a dense pyramid (full resolution first, each level half of the one before) to `outputs` channels per voxel. Every
 * level is a transposed convolution and units of its width: light (`rec_head`) one unit and no skip, standard
 * (`pred_head`) the skip and two units.
 */
export function unetDecoder(
  p: Parameters,
  features: readonly number[],
  outputs: number,
  light: boolean,
): (pyramid: Tensor[]) => Tensor {
  const head = light ? "rec_head" : "pred_head";
  const widths = features.slice(0, -1).reverse();
  const levels = widths.map((c, i) => {
    const below = features[features.length - 1 - i];
    const up = p.affine(`${head}.upsample${i + 1}`, [below, c, 2, 2, 2], 8 * c, c);
    const first = unit(p, `${head}.decoder_conv${i + 1}.conv1`, light ? c : 2 * c, c);
    const second = light ? null : unit(p, `${head}.decoder_conv${i + 1}.conv2`, c, c);
    return (x: Tensor, skip: Tensor) => {
      const wide = upconv3d(x, up.weight, up.bias!);
      x.drop();
      if (!second) return first(wide);
      const inner = first([wide, skip]);
      const y = second(inner);
      inner.drop();
      return y;
    };
  });
  const last = p.affine(`${head}.out_conv`, [outputs, features[0], 1, 1, 1], features[0], outputs);
  return (pyramid) => {
    const top = pyramid.length - 1;
    const x = levels.reduce((x, level, i) => level(x, pyramid[top - 1 - i]), pyramid[top]);
    return conv3d(x, last.weight, last.bias);
  };
}
