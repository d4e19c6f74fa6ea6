/** Heads of the contrastive methods: projector and predictor, and the pooled latent of a token network. */
import type { Parameters } from "../nn/parameters.ts";
import { silu } from "../ops/activation.ts";
import { batchNorm } from "../ops/batchnorm.ts";
import { scale } from "../ops/elementwise.ts";
import { cast } from "../ops/cast.ts";
import { linear } from "../ops/linear.ts";
import { softmaxPool } from "../ops/softmax_pool.ts";
import type { Tensor } from "../tensor.ts";

/** Rows `[n][in]` to rows `[n][out]`. */
export type Head = (x: Tensor) => Tensor;

/**
 * A head whose last layer has no norm. `sample` means rows of what that layer gives, each by weights that add up to 1: a
 * linear layer of the means is the mean of the layer, on fewer rows.
 */
export type Predictor = (x: Tensor, sample?: Head) => Tensor;

/**
 * Linear layers of the given widths, SiLU between; a norm by the batch's own statistics (D07) after each, or after each
 * but the last. Weights N(0, 0.02), biases 0 (methods.md 3.3).
 */
function layers(
  p: Parameters,
  name: string,
  widths: number[],
  normLast: boolean,
  norm: Head = batchNorm,
): Predictor {
  const made = widths.slice(1).map((out, i) => ({
    weight: p.add(`${name}.${i}.weight`, [out, widths[i]], (rng) => 0.02 * rng.normal()),
    bias: p.add(`${name}.${i}.bias`, [out], () => 0),
  }));
  return (x, sample = (x) => x) => {
    made.forEach(({ weight, bias }, i) => {
      const last = i === made.length - 1;
      x = linear(last ? sample(x) : x, weight, bias);
      if (!last || normLast) x = norm(x);
      if (!last) x = silu(x);
    });
    return x;
  };
}

/** A norm that has seen nothing: mean 0, variance 1, the published teacher's (D07). */
export const unseen: Head = (x) => scale(x, 1 / Math.sqrt(1 + 1e-5));

/** Three layers to `width`, norm after each. */
export function projector(p: Parameters, name: string, channels: number, width: number, norm?: Head): Head {
  const project = layers(p, name, [channels, width, width, width], true, norm);
  return (x) => project(x);
}

/** `width` to a quarter and back. */
export function predictor(p: Parameters, name: string, width: number): Predictor {
  return layers(p, name, [width, width / 4, width], false);
}

/** A softmax over the tokens of a crop, of one linear score each, weighs their sum (methods.md 3.3, image latent). */
export function attentionPooling(p: Parameters, name: string, channels: number): Head {
  const weight = p.add(`${name}.weight`, [1, channels], (rng) => 0.02 * rng.normal());
  const bias = p.add(`${name}.bias`, [1], () => 0);
  return (x) => softmaxPool(x, linear(cast(x, "f32"), weight, bias));
}
