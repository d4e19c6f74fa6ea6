/**
 * 3D convolutions over block lists. Blocks that the grid does not list read as zero and are not computed:
 * exactly "dense convolution, then mask again" (the submanifold rule of sparse masked autoencoding, S3D section 3).
 */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { columns, concat, fit, matrixRows } from "./concat.ts";
import { filledFrom } from "./densify.ts";
import { biasGradient } from "./linear.ts";
import { type Side, Tensor } from "../tensor.ts";

/** Two tensors on one layout that an op reads as `concat` would join them on channels, without the copy. */
export type Joined = readonly [Tensor, Tensor];

/**
 * 3x3x3 (stride 1 or 2, padding 1) or 1x1x1 convolution.
 * @param x `[block][z][y][x][c_in]`; of two joined ones: 3x3x3 with stride 1
 * @param weight `[c_out, c_in, k, k, k]` as rows c_out, channels c_in * k^3
 * @param bias `[c_out]` or null
 * @param centred a norm follows, see `biasGradient`; what it sums is summed here, where it costs less
 * @returns `[block][z/s][y/s][x/s][c_out]`
 */
export function conv3d(
  x: Tensor | Joined,
  weight: Tensor,
  bias: Tensor | null,
  stride: 1 | 2 = 1,
  centred = false,
): Tensor {
  if (!(x instanceof Tensor)) return overJoined(x, weight, bias, centred);
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
    n.vx_conv3d(x.handle, weight.handle, bias?.handle ?? 0, ...shape, centred),
    x.rows / stride ** 3,
    cOut,
    { grid, side: out },
  );
  const filled = kernel === 3 && stride === 1 && overFilled(null, x, y, weight, bias);
  if (filled) return filled;
  const wantsInput = needsGradient(x);
  return record(y, [x, weight, bias], (dy) => [
    wantsInput
      ? new Tensor(n.vx_conv3d_grad_input(dy.handle, weight.handle, ...shape), x.rows, cIn, x.layout)
      : null,
    new Tensor(n.vx_conv3d_grad_weight(x.handle, dy.handle, ...shape), cOut, weight.channels),
    bias && biasGradient(dy, centred),
  ]);
}

/** The 3x3x3 convolution with stride 1 of two joined tensors (native `joined.rs`). */
function overJoined(x: Joined, weight: Tensor, bias: Tensor | null, centred: boolean): Tensor {
  const [a, b] = x;
  if (a.rows !== b.rows || !fit(a.layout, b.layout)) {
    throw new Error("conv3d: the joined inputs do not lie on one layout");
  }
  if (weight.channels !== 27 * (a.channels + b.channels)) {
    throw new Error(
      `conv3d: weight has ${weight.channels} values per output channel, joined inputs of ${a.channels} and ${b.channels} channels need 27 each`,
    );
  }
  const { grid, side } = a.space;
  const cOut = weight.rows;
  const shape = [grid.handle, ...side, a.channels, b.channels, cOut] as const;
  const n = native();
  const y = new Tensor(
    n.vx_conv3d_joined(a.handle, b.handle, weight.handle, bias?.handle ?? 0, ...shape, centred),
    a.rows,
    cOut,
    a.layout,
  );
  const filled = overFilled(a, b, y, weight, bias);
  if (filled) return filled;
  const wants = x.map(needsGradient);
  return record(y, [a, b, weight, bias], (dy) => {
    const inputs: (Tensor | null)[] = [null, null];
    if (wants[0] || wants[1]) {
      const handles = new Uint32Array(2);
      n.vx_conv3d_joined_grad_input(dy.handle, weight.handle, ...shape, handles, handles.length);
      x.forEach((x, i) => inputs[i] = new Tensor(handles[i], x.rows, x.channels, x.layout));
    }
    const dWeight = n.vx_conv3d_joined_grad_weight(a.handle, b.handle, dy.handle, ...shape);
    return [...inputs, new Tensor(dWeight, cOut, weight.channels), bias && biasGradient(dy, centred)];
  });
}

/**
 * Records the convolution y of a volume that `densify` filled, or of one joined with it on channels (`above`), with
 * gradients that are computed on the visible blocks only (native `filled.rs`), where that pays.
 */
function overFilled(
  above: Tensor | null,
  skip: Tensor,
  y: Tensor,
  weight: Tensor,
  bias: Tensor | null,
): Tensor | undefined {
  const origin = filledFrom(skip);
  if (!origin) return;
  const { blocks, token } = origin;
  const { grid, side } = blocks.space;
  const [cAbove, cIn, cOut] = [above?.channels ?? 0, blocks.channels, weight.rows];
  const n = native();
  const shape = [grid.handle, ...side, cIn, cOut] as const;
  if (!n.vx_conv3d_filled(blocks.handle, ...shape)) return;
  const whole = (above ?? skip).space;
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
      using second = dWeight;
      using first = new Tensor(
        n.vx_conv3d_grad_weight(above.handle, dy.handle, ...rest),
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
    biasGradient(dy),
  ]);
}
