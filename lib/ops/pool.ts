/** Average pooling inside blocks and over samples. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { dtypeNumber, type Side, Tensor, volume } from "../tensor.ts";

/**
 * Mean of each 2x2x2 cube, stride 2: `[block][z][y][x][c]` -> `[block][z/2][y/2][x/2][c]`.
 * Cubes do not cross blocks, so hidden voxels never enter. @throws when a block side is odd
 */
export function avgPool2(x: Tensor): Tensor {
  const { grid, side } = x.space;
  if (side.some((s) => s % 2)) throw new Error(`avgPool2: the block side ${side} is odd`);
  const out = side.map((s) => s / 2) as unknown as Side;
  const shape = [grid.blocks, ...out, x.channels] as const;
  const n = native();
  const y = new Tensor(n.vx_average_pool(x.handle, ...shape), x.rows / 8, x.channels, { grid, side: out });
  return record(
    y,
    [x],
    (dy) => [new Tensor(n.vx_average_pool_grad(dy.handle, ...shape), x.rows, x.channels, x.layout)],
  );
}

/** Mean over the visible voxels of each sample: f32 `[samples][c]`. @throws UserError when a sample has none */
export function globalAverage(x: Tensor): Tensor {
  const { grid, side } = x.space;
  const shape = [grid.handle, volume(side), x.channels] as const;
  const n = native();
  const y = new Tensor(n.vx_global_average(x.handle, ...shape), grid.samples, x.channels);
  return record(
    y,
    [x],
    (dy) => {
      const dx = n.vx_global_average_grad(dy.handle, ...shape, dtypeNumber(x.dtype));
      return [new Tensor(dx, x.rows, x.channels, x.layout)];
    },
  );
}
