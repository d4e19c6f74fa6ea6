/**
 * 3D convolutions over block lists. Blocks that the grid does not list read as zero and are not computed:
 * exactly "dense convolution, then mask again" (the submanifold rule of sparse masked autoencoding, S3D section 3).
 */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Side, Tensor } from "../tensor.ts";

/**
 * 3x3x3 (stride 1 or 2, padding 1) or 1x1x1 convolution.
 * @param x `[block][z][y][x][c_in]`
 * @param weight `[c_out, c_in, k, k, k]` as rows c_out, channels c_in * k^3
 * @param bias `[c_out]` or null
 * @returns `[block][z/s][y/s][x/s][c_out]`
 */
export function conv3d(x: Tensor, weight: Tensor, bias: Tensor | null, stride: 1 | 2 = 1): Tensor {
  const { grid, side } = x.space;
  const [cIn, cOut] = [x.channels, weight.rows];
  const kernel = Math.round(Math.cbrt(weight.channels / cIn));
  if (kernel ** 3 * cIn !== weight.channels) {
    throw new Error(
      `conv3d: weight has ${weight.channels} values per output channel, input has ${cIn} channels`,
    );
  }
  if (side.some((s) => s % stride)) {
    throw new Error(`conv3d: stride ${stride} does not divide the block side ${side}`);
  }
  const out = side.map((s) => s / stride) as unknown as Side;
  const shape = [grid.handle, ...out, cIn, cOut, kernel, stride] as const;
  const n = native();
  const y = new Tensor(
    n.vx_conv3d(x.handle, weight.handle, bias?.handle ?? 0, ...shape),
    x.rows / stride ** 3,
    cOut,
    { grid, side: out },
  );
  const wantsInput = needsGradient(x);
  return record(y, [x, weight, bias], (dy) => [
    wantsInput
      ? new Tensor(n.vx_conv3d_grad_input(dy.handle, weight.handle, ...shape), x.rows, cIn, x.layout)
      : null,
    new Tensor(n.vx_conv3d_grad_weight(x.handle, dy.handle, ...shape), cOut, weight.channels),
    bias && new Tensor(n.vx_sum_rows(dy.handle, dy.rows, cOut), 1, cOut),
  ]);
}

/**
 * Transposed convolution 2x2x2 with stride 2: block sides double.
 * @param weight `[c_in, c_out, 2, 2, 2]` as rows c_in, channels c_out * 8
 */
export function upconv3d(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const { grid, side } = x.space;
  const [cIn, cOut] = [x.channels, weight.channels / 8];
  if (weight.rows !== cIn || bias.length !== cOut) {
    throw new Error("upconv3d: weight or bias does not fit the input");
  }
  const shape = [grid.blocks, ...side, cIn, cOut] as const;
  const out = side.map((s) => 2 * s) as unknown as Side;
  const n = native();
  const y = new Tensor(n.vx_upconv3d(x.handle, weight.handle, bias.handle, ...shape), 8 * x.rows, cOut, {
    grid,
    side: out,
  });
  const wantsInput = needsGradient(x);
  return record(y, [x, weight, bias], (dy) => [
    wantsInput
      ? new Tensor(n.vx_upconv3d_grad_input(dy.handle, weight.handle, ...shape), x.rows, cIn, x.layout)
      : null,
    new Tensor(n.vx_upconv3d_grad_weight(x.handle, dy.handle, ...shape), cIn, weight.channels),
    new Tensor(n.vx_sum_rows(dy.handle, dy.rows, cOut), 1, cOut),
  ]);
}
