/**
 * Tokens: cubes of voxels as rows. Their layout says which are there and where: blocks of side 1 for kept tokens, one
 * block per sample, as large as the token grid, for all of them.
 */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Layout, Tensor, volume } from "../tensor.ts";

/** Tokens per axis of the whole grid. */
function dims({ grid, side }: Layout): number[] {
  return side.map((s, a) => s * grid.dims[a]);
}

/**
 * Cubes of `token` voxels per side as rows, in the order of a convolution weight: a convolution with kernel and stride
 * `token` is a linear layer on them. Voxels of tokens that `layout` does not list are not read.
 * @param x `[sample][z][y][x][c]`, one block per sample
 * @param layout of the result
 * @returns `[rows][c * token^3]`
 */
export function patchify(x: Tensor, layout: Layout, token: number): Tensor {
  const { grid, side } = x.space;
  const c = x.channels;
  if (grid.blocks !== layout.grid.samples || dims(layout).some((d, a) => d * token !== side[a])) {
    throw new Error(`patchify: ${dims(layout)} tokens of ${token} do not make up ${side} voxels`);
  }
  const n = native();
  const tail = [layout.grid.handle, ...layout.side, token, c] as const;
  const y = new Tensor(
    n.vx_patchify(x.handle, ...tail),
    layout.grid.blocks * volume(layout.side),
    c * token ** 3,
    layout,
  );
  return record(y, [x], (dy) => [new Tensor(n.vx_patchify_grad(dy.handle, ...tail), x.rows, c, x.layout)]);
}

/**
 * x + table[token]: learned absolute positions.
 * @param x `[rows][c]` on a layout
 * @param table `[tokens of the grid][c]`, z, y, x in turn
 */
export function addPositions(x: Tensor, table: Tensor): Tensor {
  const { grid, side } = x.space;
  const c = x.channels;
  const n = native();
  const tail = [grid.handle, ...side, c] as const;
  const y = new Tensor(n.vx_positions(x.handle, table.handle, ...tail), x.rows, c, x.layout);
  const wants = [x, table].map(needsGradient);
  return record(y, [x, table], (dy) => [
    wants[0] ? dy : null,
    wants[1] ? new Tensor(n.vx_positions_grad(dy.handle, ...tail), table.rows, table.channels) : null,
  ]);
}

/**
 * Rotary position embedding in three axes: a third of each head's channels turns with the token's index along z, y
 * and x, adjacent channels in pairs, pair j of F by index * 10000^(-j / F) (Primus).
 * @param x `[rows][heads * h]` on a layout, h a multiple of 6
 */
export function rope(x: Tensor, heads: number): Tensor {
  const { grid, side } = x.space;
  const n = native();
  const turn = (t: Tensor, back: boolean) =>
    new Tensor(
      n.vx_rope(t.handle, grid.handle, ...side, heads, x.channels, back),
      x.rows,
      x.channels,
      x.layout,
    );
  return record(turn(x, false), [x], (dy) => [turn(dy, true)]);
}
