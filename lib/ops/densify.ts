/** Between a block list and whole volumes: what joins a masked encoder to a dense decoder. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Grid, type Side, Tensor, volume } from "../tensor.ts";

/** Side of the whole volume that a grid of blocks of this side fills. */
function whole(grid: Grid, side: Side): Side {
  return side.map((s, i) => s * grid.dims[i]) as unknown as Side;
}

/** What `densify` made a volume of. */
export interface Filled {
  blocks: Tensor;
  token: Tensor | null;
}

const origins = new WeakMap<Tensor, Filled>();

/** The blocks and the token of a volume that `densify` made. */
export function filledFrom(x: Tensor): Filled | undefined {
  return origins.get(x);
}

/**
 * Writes the visible blocks into whole volumes and the token into every hidden voxel (S3D).
 * @param x `[block][z][y][x][c]` on a masked grid
 * @param token `[c]`, or null for zeros
 * @param dense grid of the result: one block per sample
 * @returns `[sample][z][y][x][c]`, sides times the grid's blocks per axis
 */
export function densify(
  x: Tensor,
  token: Tensor | null,
  dense: Grid = Grid.dense(x.space.grid.samples),
): Tensor {
  const { grid, side } = x.space;
  if (dense.samples !== grid.samples || volume(dense.dims) !== 1 || dense.blocks !== grid.samples) {
    throw new Error(`densify: the result needs one block for each of ${grid.samples} samples`);
  }
  const c = x.channels;
  const shape = [grid.handle, ...side, c] as const;
  const n = native();
  const out = whole(grid, side);
  const y = new Tensor(
    n.vx_densify(x.handle, token?.handle ?? 0, ...shape),
    grid.samples * volume(out),
    c,
    { grid: dense, side: out },
  );
  origins.set(y, { blocks: x, token });
  const wants = [x, token].map(needsGradient);
  return record(y, [x, token], (dy) => [
    wants[0] ? new Tensor(n.vx_gather_blocks(dy.handle, ...shape), x.rows, c, x.layout) : null,
    wants[1] ? new Tensor(n.vx_densify_grad_token(dy.handle, ...shape), 1, c) : null,
  ]);
}

/**
 * The visible blocks of whole volumes.
 * @param x `[sample][z][y][x][c]`, one block per sample
 * @param grid the visible blocks
 * @param side of the blocks of `grid`
 * @returns `[block][z][y][x][c]`
 */
export function gatherBlocks(x: Tensor, grid: Grid, side: Side): Tensor {
  const { grid: dense, side: size } = x.space;
  const fits = dense.blocks === dense.samples && dense.samples === grid.samples &&
    whole(grid, side).every((s, i) => s === size[i]);
  if (!fits) {
    throw new Error(`gatherBlocks: ${grid.dims} blocks of ${side} do not make up whole volumes of ${size}`);
  }
  const c = x.channels;
  const shape = [grid.handle, ...side, c] as const;
  const n = native();
  const y = new Tensor(n.vx_gather_blocks(x.handle, ...shape), grid.blocks * volume(side), c, { grid, side });
  return record(y, [x], (dy) => [new Tensor(n.vx_densify(dy.handle, 0, ...shape), x.rows, c, x.layout)]);
}
