/** Tensors put together on channels, and matrices taken apart by rows. */
import { needsGradient, record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Layout, Tensor, volume } from "../tensor.ts";

/** Whether two layouts list the same voxels: the same grid, or two that list every block. */
export function fit(a?: Layout, b?: Layout): boolean {
  if (!a || !b) return true;
  const every = ({ grid }: Layout) => grid.blocks === grid.samples * volume(grid.dims);
  return a.side.every((s, i) => s === b.side[i] && a.grid.dims[i] === b.grid.dims[i]) &&
    (a.grid === b.grid || every(a) && every(b) && a.grid.samples === b.grid.samples);
}

/** Columns `start` to `start + count` of a tensor, on `layout`. */
export function columns(x: Tensor, start: number, count: number, layout?: Layout): Tensor {
  return new Tensor(
    native().vx_columns(x.handle, x.rows, x.channels, start, count),
    x.rows,
    count,
    layout,
  );
}

/** `[rows][ca]`, `[rows][cb]` -> `[rows][ca + cb]`, on the layout of `a`. */
export function concat(a: Tensor, b: Tensor): Tensor {
  if (a.rows !== b.rows || !fit(a.layout, b.layout)) {
    throw new Error("concat: the inputs do not lie on one layout");
  }
  const [ca, cb] = [a.channels, b.channels];
  const n = native();
  const y = new Tensor(
    n.vx_concat(a.handle, b.handle, a.rows, ca, cb),
    a.rows,
    ca + cb,
    a.layout ?? b.layout,
  );
  const wants = [a, b].map(needsGradient);
  return record(y, [a, b], (dy) => [
    wants[0] ? columns(dy, 0, ca, a.layout) : null,
    wants[1] ? columns(dy, ca, cb, b.layout) : null,
  ]);
}

/** Rows `start` to `start + count` as a matrix `[count][c]`. */
export function matrixRows(x: Tensor, start: number, count: number): Tensor {
  const shape = [x.rows, x.channels, start, count] as const;
  const n = native();
  const y = new Tensor(n.vx_rows(x.handle, ...shape), count, x.channels);
  return record(
    y,
    [x],
    (dy) => [new Tensor(n.vx_rows_grad(dy.handle, ...shape), x.rows, x.channels, x.layout)],
  );
}
