/** Convolutions of two joined tensors: output and every gradient have the bits of the convolution of their `concat`. */
import { assertEquals, assertThrows } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { native } from "../../lib/native/library.ts";
import { cast } from "../../lib/ops/cast.ts";
import { concat } from "../../lib/ops/concat.ts";
import { conv3d } from "../../lib/ops/conv3d.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { type Dtype, Grid, memory, planning, scope, type Side, Tensor, volume } from "../../lib/tensor.ts";
import { leakFree, wave } from "./wave.ts";

/** Instruction sets that the processor may have; 0: the best. */
const SETS = [0, 1, 2, 3, 4, 5, 6];

/** Channels of both inputs and of the output, block side. */
const SHAPES: [number, number, number, Side][] = [
  [16, 16, 16, [4, 2, 6]], // the parts meet inside a panel of outputs
  [32, 32, 32, [6, 4, 8]],
  [17, 5, 9, [4, 4, 4]], // joined in scratch
  [48, 20, 40, [2, 2, 2]],
  [16, 8, 12, [3, 5, 4]],
];

const grids = {
  masked: () => new Grid(2, [2, 2, 1], Uint8Array.of(1, 0, 1, 1, 0, 1, 1, 0)),
  dense: () => Grid.dense(2),
};

/** Output and gradients of a weighted sum of it. */
function values(shape: typeof SHAPES[number], grid: Grid, dtype: Dtype, joined: boolean): Float32Array[] {
  const [ca, cb, cOut, side] = shape;
  const rows = grid.blocks * volume(side);
  const a = Tensor.from(wave(rows * ca, 0.37, 1), ca, { grid, side }, dtype);
  const b = Tensor.from(wave(rows * cb, 0.23, 2), cb, { grid, side }, dtype);
  const weight = Tensor.from(wave(cOut * (ca + cb) * 27, 0.71, 3, 0.1), (ca + cb) * 27);
  const bias = Tensor.from(wave(cOut, 0.9, 4), cOut);
  const leaves = [a, b, weight, bias];
  const { tape, result } = Tape.record(leaves, () => {
    const y = cast(conv3d(joined ? [a, b] : concat(a, b), weight, bias), "f32");
    return { y, loss: dot(y, Tensor.from(wave(y.length, 0.77, 0.2), cOut)) };
  });
  const y = result.y.read();
  const all = tape.backward(result.loss);
  return [y, ...leaves.map((leaf) => all.get(leaf)!.read())];
}

for (const level of SETS) {
  Deno.test(
    `joined inputs are read and written in place, instruction set ${level}`,
    leakFree(async () => {
      try {
        native().vx_force_isa(level);
      } catch {
        return; // this processor has others
      }
      try {
        for (const shape of SHAPES) {
          for (const grid of Object.values(grids)) {
            for (const dtype of ["f32", "bf16"] as const) {
              const [got, want] = [true, false].map((joined) =>
                scope(() => values(shape, grid(), dtype, joined))
              );
              assertEquals(await got, await want, `${shape} ${dtype}`);
            }
          }
        }
      } finally {
        native().vx_force_isa(0);
      }
    }),
  );
}

Deno.test(
  "joined inputs need no memory beside their own",
  leakFree(() =>
    scope(() => {
      const [side, grid, c] = [[32, 32, 32] as const, Grid.dense(1), 16];
      const weight = Tensor.full(0.1, c, 2 * c * 27);
      planning(true);
      try {
        const tensor = () => Tensor.full(1, volume(side), c, { grid, side });
        const [a, b] = [tensor(), tensor()];
        const y = conv3d([a, b], weight, null);
        const { bytes, peakBytes } = memory();
        assertEquals(peakBytes, bytes);
        [a, b, y].forEach((t) => t[Symbol.dispose]());
      } finally {
        planning(false);
      }
    })
  ),
);

Deno.test(
  "joined inputs on two layouts are refused",
  leakFree(() =>
    scope(() => {
      const grid = Grid.dense(1);
      const of = (side: Side, c: number) => Tensor.full(1, volume(side), c, { grid, side });
      const weight = Tensor.full(1, 4, 8 * 27);
      assertThrows(() => conv3d([of([2, 2, 4], 4), of([2, 4, 2], 4)], weight, null), Error, "one layout");
      assertThrows(
        () => conv3d([of([2, 2, 2], 4), of([2, 2, 2], 5)], weight, null),
        Error,
        "4 and 5 channels",
      );
    })
  ),
);
