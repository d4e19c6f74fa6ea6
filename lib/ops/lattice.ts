/** Sub-lattices of a volume: what strided 1x1x1 and 2x2x2 convolutions and patch merging read. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Side, Tensor } from "../tensor.ts";

/** All offsets of a 2x2x2 cell, z slowest. */
export const CELL: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7];

/**
 * Every second voxel, at each offset 4a + 2b + d = (a, b, d) in z, y, x, beside each other on channels:
 * `[block][2z][2y][2x][c]` -> `[block][z][y][x][offsets * c]`, channel k * c + i of offset k and input channel i, or
 * i * offsets + k when `inner` (the order of a convolution weight `[c_out, c, 2, 2, 2]`).
 * @throws when a block side is odd
 */
export function lattice(x: Tensor, offsets: readonly number[], inner = false): Tensor {
  const { grid, side } = x.space;
  if (side.some((s) => s % 2)) throw new Error(`lattice: the block side ${side} is odd`);
  const out = side.map((s) => s / 2) as unknown as Side;
  const list = Uint8Array.from(offsets);
  const shape = [grid.blocks, ...out, x.channels, list, list.length, inner] as const;
  const n = native();
  const y = new Tensor(n.vx_lattice(x.handle, ...shape), x.rows / 8, x.channels * offsets.length, {
    grid,
    side: out,
  });
  return record(
    y,
    [x],
    (dy) => [new Tensor(n.vx_lattice_grad(dy.handle, ...shape), x.rows, x.channels, x.layout)],
  );
}

/** `[block][z][y][x][c]` -> `[block][2z][2y][2x][c]` with x at one offset of each cell and zeros elsewhere. */
export function place(x: Tensor, offset: number): Tensor {
  const { grid, side } = x.space;
  const list = Uint8Array.of(offset);
  const shape = [grid.blocks, ...side, x.channels, list, list.length, false] as const;
  const n = native();
  const y = new Tensor(n.vx_lattice_grad(x.handle, ...shape), 8 * x.rows, x.channels, {
    grid,
    side: side.map((s) => 2 * s) as unknown as Side,
  });
  return record(
    y,
    [x],
    (dy) => [new Tensor(n.vx_lattice(dy.handle, ...shape), x.rows, x.channels, x.layout)],
  );
}
