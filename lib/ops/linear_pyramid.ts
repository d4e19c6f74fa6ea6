/** A linear layer on the joined levels of a pyramid, each at its own resolution. */
import { record } from "../autograd.ts";
import { onCard } from "../device.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";
import { adaptivePool } from "./adaptive_pool.ts";
import { columns, concat } from "./concat.ts";
import { biasGradient, linear } from "./linear.ts";

/**
 * What `linear` makes of all levels, repeated to the side of the first and joined on channels: a linear layer of repeated
 * rows is the repeated layer, so each level meets its columns of the weight at its own side.
 * @param levels dense `[n][z][y][x][c]` of any channels, each of half the side of the one before; or one matrix
 * @param weight `[out][sum of channels]`
 * @param centred a norm over the rows follows, see `biasGradient`
 * @returns `[n][z][y][x][out]` on the layout of the first level
 */
export function linearPyramid(
  levels: readonly Tensor[],
  weight: Tensor,
  bias: Tensor,
  centred = false,
): Tensor {
  const [first, ...rest] = levels;
  if (!rest.length) return linear(first, weight, bias, centred);
  if (onCard()) {
    const whole = levels.map((level) => adaptivePool(level, first.space.side)).reduce(concat);
    return linear(whole, weight, bias, centred);
  }
  const n = native();
  const out = weight.rows;
  const starts = levels.map((_, k) => levels.slice(0, k).reduce((sum, level) => sum + level.channels, 0));
  const slice = (k: number) => columns(weight, starts[k], levels[k].channels);
  const size = (k: number) => [levels[k].rows, levels[k].channels, out] as const;

  let sum: Tensor | undefined;
  for (let k = levels.length - 1; k >= 0; k--) {
    const { handle, channels, layout, rows, space: { grid, side } } = levels[k];
    using part = slice(k);
    using coarse = sum;
    const plus = k ? 0 : bias.handle;
    const y = coarse
      ? n.vx_linear_onto(handle, part.handle, plus, coarse.handle, grid.samples, ...side, channels, out)
      : n.vx_linear(handle, part.handle, plus, ...size(k));
    sum = new Tensor(y, rows, out, layout);
  }
  return record(sum!, [...levels, weight, bias], (dy) => {
    let own = dy;
    const inputs: Tensor[] = [];
    let weights: Tensor | undefined;
    levels.forEach((x, k) => {
      if (k) {
        const { grid, side } = x.space;
        using mean = new Tensor(n.vx_average_pool(own.handle, grid.samples, ...side, out), x.rows, out);
        if (own !== dy) own[Symbol.dispose]();
        own = new Tensor(n.vx_scale(8, mean.handle, mean.length), x.rows, out);
      }
      using part = slice(k);
      inputs.push(
        new Tensor(n.vx_linear_grad_input(own.handle, part.handle, ...size(k)), x.rows, x.channels, x.layout),
      );
      const next = new Tensor(n.vx_linear_grad_weight(x.handle, own.handle, ...size(k)), out, x.channels);
      using before = weights;
      weights = before ? concat(before, next) : next;
      if (before) next[Symbol.dispose]();
    });
    if (own !== dy) own[Symbol.dispose]();
    return [...inputs, weights!, biasGradient(dy, centred)];
  });
}
