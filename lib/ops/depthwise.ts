/** Depthwise 3x3x3 convolutions over block lists: one kernel per channel; hidden voxels read as zero. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { biasGradient } from "./linear.ts";
import { type Side, Tensor, volume } from "../tensor.ts";

/**
 * Depthwise convolution with padding 1.
 * @param x `[block][z][y][x][c]`
 * @param weight `[c, 1, 3, 3, 3]` as rows c, channels 27
 * @param bias `[c]`
 * @returns `[block][ceil(z/s)][ceil(y/s)][ceil(x/s)][c]`
 * @throws when the stride does not divide the side of blocks of a grid with several
 */
export function depthwise3d(x: Tensor, weight: Tensor, bias: Tensor, stride: 1 | 2 = 1): Tensor {
  const { side } = x.space;
  const to = side.map((s) => Math.ceil(s / stride)) as unknown as Side;
  return apply(x, weight, bias, side, to, stride, false);
}

/** The transposed depthwise convolution of stride 2, padding 1: sides n -> 2n - 1. Shapes as in `depthwise3d`. */
export function depthwiseUp3d(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const fine = x.space.side.map((s) => 2 * s - 1) as unknown as Side;
  return apply(x, weight, bias, fine, fine, 2, true);
}

function apply(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  fine: Side,
  to: Side,
  stride: number,
  up: boolean,
): Tensor {
  const c = x.channels;
  if (weight.rows !== c || weight.channels !== 27 || bias.length !== c) {
    throw new Error(`depthwise: weight ${weight.rows} x ${weight.channels} does not fit ${c} channels`);
  }
  const { grid } = x.space;
  const shape = [grid.handle, ...fine, c, stride] as const;
  const n = native();
  const y = new Tensor(
    n.vx_depthwise(x.handle, weight.handle, bias.handle, ...shape, up),
    grid.blocks * volume(to),
    c,
    { grid, side: to },
  );
  const wantsInput = needsGradient(x);
  return record(y, [x, weight, bias], (dy) => [
    wantsInput
      ? new Tensor(n.vx_depthwise(dy.handle, weight.handle, 0, ...shape, !up), x.rows, c, x.layout)
      : null,
    new Tensor(
      n.vx_depthwise_grad_weight(up ? dy.handle : x.handle, up ? x.handle : dy.handle, ...shape),
      c,
      27,
    ),
    biasGradient(dy),
  ]);
}
