/**
 * 3D convolutions over block lists. Blocks that the grid does not list read as zero and are not computed:
 * exactly "dense convolution, then mask again" (the submanifold rule of sparse masked autoencoding, S3D section 3).
 */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { columns, concat, joinedFrom, matrixRows } from "./concat.ts";
import { filledFrom } from "./densify.ts";
import { type Side, Tensor } from "../tensor.ts";

/**
 * 3x3x3 (stride 1 or 2, padding 1) or 1x1x1 convolution.
 * @param x `[block][z][y][x][c_in]`
 * @param weight `[c_out, c_in, k, k, k]` as rows c_out, channels c_in * k^3
 * @param bias `[c_out]` or null
 * @param centred a norm follows that takes the mean away: the gradient of the bias is zero, and is not summed to rounding
 * @returns `[block][z/s][y/s][x/s][c_out]`
 */
export function conv3d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  stride: 1 | 2 = 1,
  centred = false,
): Tensor {
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
  const filled = kernel === 3 && stride === 1 && overFilled(x, y, weight, bias);
  if (filled) return filled;
  const wantsInput = needsGradient(x);
  return record(y, [x, weight, bias], (dy) => [
    wantsInput
      ? new Tensor(n.vx_conv3d_grad_input(dy.handle, weight.handle, ...shape), x.rows, cIn, x.layout)
      : null,
    new Tensor(n.vx_conv3d_grad_weight(x.handle, dy.handle, ...shape), cOut, weight.channels),
    bias &&
    (centred ? Tensor.full(0, 1, cOut) : new Tensor(n.vx_sum_rows(dy.handle, dy.rows, cOut), 1, cOut)),
  ]);
}

/**
 * Records the convolution y of a volume that `densify` filled, or of one joined with it on channels, with gradients that
 * are computed on the visible blocks only (native `filled.rs`), where that pays.
 */
function overFilled(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | null): Tensor | undefined {
  const [above, skip] = joinedFrom(x) ?? [null, x];
  const origin = filledFrom(skip);
  if (!origin) return;
  const { blocks, token } = origin;
  const { grid, side } = blocks.space;
  const [cAbove, cIn, cOut] = [above?.channels ?? 0, blocks.channels, weight.rows];
  const n = native();
  const shape = [grid.handle, ...side, cIn, cOut] as const;
  if (!n.vx_conv3d_filled(blocks.handle, ...shape)) return;
  const whole = x.space;
  const [wantsAbove, wantsBlocks, wantsToken] = [above, blocks, token].map(needsGradient);
  return record(y, [above, blocks, token, weight, bias], (dy) => {
    using w = columns(weight, 27 * cAbove, 27 * cIn);
    using sums = new Tensor(
      n.vx_conv3d_tap_sums(dy.handle, whole.grid.samples, ...whole.side, cOut),
      27,
      cOut,
    );
    let dToken: Tensor | null = null;
    const dBlocks = new Tensor(
      n.vx_conv3d_filled_grad_input(dy.handle, w.handle, ...shape),
      blocks.rows,
      cIn,
      blocks.layout,
    );
    if (wantsToken) {
      using visible = new Tensor(n.vx_sum_rows(dBlocks.handle, blocks.rows, cIn), 1, cIn);
      const parts = [sums.handle, w.handle, visible.handle] as const;
      dToken = new Tensor(n.vx_conv3d_filled_grad_token(...parts, cIn, cOut), 1, cIn);
    }
    if (!wantsBlocks) dBlocks[Symbol.dispose]();
    const read = [blocks.handle, token?.handle ?? 0, dy.handle, sums.handle] as const;
    let dWeight = new Tensor(n.vx_conv3d_filled_grad_weight(...read, ...shape), cOut, 27 * cIn);
    let dAbove: Tensor | null = null;
    if (above) {
      const rest = [whole.grid.handle, ...whole.side, cAbove, cOut, 3, 1] as const;
      if (wantsAbove) {
        using part = columns(weight, 0, 27 * cAbove);
        const handle = n.vx_conv3d_grad_input(dy.handle, part.handle, ...rest);
        dAbove = new Tensor(handle, above.rows, cAbove, above.layout);
      }
      using values = columns(x, 0, cAbove);
      using second = dWeight;
      using first = new Tensor(
        n.vx_conv3d_grad_weight(values.handle, dy.handle, ...rest),
        cOut,
        27 * cAbove,
      );
      dWeight = concat(first, second);
    }
    return [dAbove, wantsBlocks ? dBlocks : null, dToken, dWeight, bias && matrixRows(sums, 13, 1)];
  });
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
