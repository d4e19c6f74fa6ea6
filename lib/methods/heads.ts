/** Heads of the contrastive methods: projector and predictor, and the pooled latent of a token network. */
import { onCard } from "../device.ts";
import type { Parameters } from "../nn/parameters.ts";
import { silu } from "../ops/activation.ts";
import { batchNorm, batchNormSilu } from "../ops/batchnorm.ts";
import { scale } from "../ops/elementwise.ts";
import { cast } from "../ops/cast.ts";
import { fold } from "../ops/fold.ts";
import { linear, product } from "../ops/linear.ts";
import { linearPyramid } from "../ops/linear_pyramid.ts";
import { softmaxPool } from "../ops/softmax_pool.ts";
import type { Tensor } from "../tensor.ts";

/** Rows `[n][in]` to rows `[n][out]`. */
export type Head = (x: Tensor) => Tensor;

/** Weight and bias of a linear layer. */
export interface Layer {
  weight: Tensor;
  bias: Tensor;
}

/**
 * Latents `[n][width]` of a projector, and of the predictor after it if there is one. `levels`: its input, see `linearPyramid`.
 * `sample` takes means of rows, by weights that add up to 1, of what comes out; where that is the same, fewer rows pass the
 * last layer.
 */
export type Projector = (levels: readonly Tensor[], sample?: Head, predictor?: Layer[]) => Tensor;

/** Linear layers of the given widths. Weights N(0, 0.02), biases 0. */
function layers(p: Parameters, name: string, widths: number[]): Layer[] {
  return widths.slice(1).map((out, i) => ({
    weight: p.add(`${name}.${i}.weight`, [out, widths[i]], (rng) => 0.02 * rng.normal()),
    bias: p.add(`${name}.${i}.bias`, [out], () => 0),
  }));
}

/** A norm that has seen nothing: mean 0, variance 1, the published teacher's (D07). */
export const unseen: Head = (x) => scale(x, 1 / Math.sqrt(1 + 1e-5));

const same: Head = (x) => x;

/** Three layers to `width`, a norm by the batch's own statistics (D07) after each, SiLU between. */
export function projector(
  p: Parameters,
  name: string,
  channels: number,
  width: number,
  norm: Head = batchNorm,
): Projector {
  const [first, second, third] = layers(p, name, [channels, width, width, width]);
  const centred = norm === batchNorm;
  const active: Head = centred ? batchNormSilu : (x) => silu(norm(x));
  return (levels, sample = same, predictor) => {
    const wide = active(linearPyramid(levels, first.weight, first.bias, centred));
    const x = active(linear(wide, second.weight, second.bias, centred));
    if (!centred || x.rows <= width || onCard()) {
      const y = norm(linear(x, third.weight, third.bias, centred));
      return predictor
        ? predict(linear(y, predictor[0].weight, predictor[0].bias, true), predictor[1], sample)
        : sample(y);
    }
    const { weight, centre } = fold(x, third.weight, third.bias);
    if (!predictor) return linear(sample(x), weight, linear(centre, weight));
    const joined = product(predictor[0].weight, weight);
    const shift = linear(centre, joined, predictor[0].bias);
    return predict(linear(x, joined, shift, true), predictor[1], sample);
  };
}

/** The last layer of a predictor after norm and SiLU: it takes means of rows, whose layer is the mean of the layer. */
function predict(x: Tensor, { weight, bias }: Layer, sample: Head): Tensor {
  return linear(sample(batchNormSilu(x)), weight, bias);
}

/** `width` to a quarter and back, norm and SiLU between. */
export function predictor(p: Parameters, name: string, width: number): Layer[] {
  return layers(p, name, [width, width / 4, width]);
}

/** A softmax over the tokens of a crop, of one linear score each, weighs their sum (image latent). */
export function attentionPooling(p: Parameters, name: string, channels: number): Head {
  const weight = p.add(`${name}.weight`, [1, channels], (rng) => 0.02 * rng.normal());
  const bias = p.add(`${name}.bias`, [1], () => 0);
  return (x) => softmaxPool(x, linear(cast(x, "f32"), weight, bias));
}
