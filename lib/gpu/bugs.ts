/** Bugs that the emulation of CUDA has to find: each is one change of the text of a kernel. */
import { UserError } from "../errors.ts";

/** A change of `native/src/ops/<op>/kernel.cu`: the only place where `find` stands becomes `replace`. */
export interface Bug {
  name: string;
  op: string;
  find: string;
  replace: string;
}

export const BUGS: readonly Bug[] = [
  {
    name: "missing barrier before use",
    op: "conv3d",
    find: "copies_wait_but_one();\n            __syncthreads();",
    replace: "copies_wait_but_one();",
  },
  {
    name: "race: staged channels overwritten while other warps read them",
    op: "conv3d",
    find: "if (channel) __syncthreads();",
    replace: "",
  },
  {
    name: "wrong neighbour",
    op: "conv3d",
    find: "neighbours[(tile.block + r.part) * 27 + neighbour]",
    replace: "neighbours[(tile.block + r.part) * 27 + 26 - neighbour]",
  },
  {
    name: "halo one voxel short",
    op: "conv3d",
    find: "ok = ok && p <= side;",
    replace: "ok = ok && p < side;",
  },
  {
    name: "hidden voxels left as shared memory was",
    op: "conv3d",
    find: "copy16(to, ok ? from : x, ok);",
    replace: "if (ok) copy16(to, from, ok);",
  },
  {
    name: "halves of a fragment exchanged",
    op: "conv3d",
    find: "mma(sums[m][2 * n + 1], a[m], b[2], b[3]);",
    replace: "mma(sums[m][2 * n + 1], a[m], b[3], b[2]);",
  },
  {
    name: "last tile missed",
    op: "conv3d",
    find: "index < count; index += gridDim.x",
    replace: "index < count - 1; index += gridDim.x",
  },
  {
    name: "stride forgotten on one axis",
    op: "conv3d",
    find: "r.at[1] * g.stride",
    replace: "r.at[1]",
  },
];

/**
 * Lanes of a warp that part, for all that the compiler sees: it then waits after every product of wgmma, and a compiler of
 * release 13 says so. The gate plants it to know that it hears.
 */
export const SERIALIZED: Bug = {
  name: "products of wgmma one at a time",
  op: "conv3d_weight",
  find: "__shfl_sync(0xffffffffu, (int)(threadIdx.x / 128), 0)",
  replace: "threadIdx.x / 128",
};

/** The kernel with the bug in it. @throws UserError when the text has moved on and the bug no longer fits */
export function planted(bug: Bug, source: string): string {
  const parts = source.split(bug.find);
  if (parts.length !== 2) {
    throw new UserError(
      `lib/gpu/bugs.ts: "${bug.name}" looks for "${bug.find}" in ops/${bug.op}/kernel.cu, which holds it ${
        parts.length - 1
      } times; it must hold it once`,
    );
  }
  return parts.join(bug.replace);
}
