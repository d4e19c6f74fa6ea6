/** Max-pooling inside blocks. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Side, Tensor } from "../tensor.ts";

/**
 * Largest value of each 2x2x2 cube, stride 2: `[block][z][y][x][c]` -> `[block][z/2][y/2][x/2][c]`; the gradient goes to
 * the first of equal values, as in PyTorch. Cubes do not cross blocks, so hidden voxels never enter.
 * @throws when a block side is odd
 */
export function maxPool2(x: Tensor): Tensor {
  const { grid, side } = x.space;
  if (side.some((s) => s % 2)) throw new Error(`maxPool2: the block side ${side} is odd`);
  const out = side.map((s) => s / 2) as unknown as Side;
  const shape = [grid.blocks, ...out, x.channels] as const;
  const n = native();
  const y = new Tensor(n.vx_max_pool(x.handle, ...shape), x.rows / 8, x.channels, { grid, side: out });
  return record(y, [x], (dy) => [
    new Tensor(n.vx_max_pool_grad(dy.handle, x.handle, y.handle, ...shape), x.rows, x.channels, x.layout),
  ]);
}
