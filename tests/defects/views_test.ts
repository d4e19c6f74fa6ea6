/** What the published consistent view alignment gets wrong about views and boxes. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { drawPair, type Triple } from "../../lib/data/views.ts";
import { align } from "../../lib/ops/align.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { leakFree } from "../ops/wave.ts";

const axes = [0, 1, 2];

for (const patch of [[256, 256, 32], [128, 128, 32], [160, 160, 160]] as Triple[]) {
  Deno.test(`D08 D09: patch ${patch}, any volume that holds it: boxes are the integer intersection`, () => {
    const rng = new Rng("volumes", patch.join());
    let partial = 0;
    for (let index = 0; index < 3000; index++) {
      const shape = patch.map((p) => p + rng.integer(p)) as Triple;
      const { a, b, overlap } = drawPair(1, index, [{ id: "v", shape }], patch, false);
      for (const d of axes) {
        assert(a.box[d] >= 0 && b.box[d] >= 0 && a.box[d + 3] <= shape[d] && b.box[d + 3] <= shape[d]);
        const [lo, hi] = [Math.max(a.box[d], b.box[d]), Math.min(a.box[d + 3], b.box[d + 3])];
        for (const [box, view] of [[overlap.a, a], [overlap.b, b]] as const) {
          assertAlmostEquals(box[d] * patch[d], lo - view.box[d], 1e-9);
          assertAlmostEquals(box[d + 3] * patch[d], hi - view.box[d], 1e-9);
        }
        partial += Number(hi - lo < patch[d]);
      }
      // Two equal views are no pair: at least one axis with room is shifted.
      if (shape.every((s, d) => s > 1.4 * patch[d])) {
        assert(axes.some((d) => a.box[d] !== b.box[d]), `pair ${index} of volume ${shape}`);
      }
    }
    assert(partial > 3000, `${partial} of 9000 axes are shifted`);
  });
}

Deno.test(
  "D01 D03: each axis of a box and of the aligned size belongs to the same axis of the features",
  leakFree(() =>
    scope(() => {
      const side: Triple = [8, 12, 20];
      const values: number[] = [];
      for (let z = 0; z < side[0]; z++) {
        for (let y = 0; y < side[1]; y++) {
          for (let x = 0; x < side[2]; x++) values.push(z + .5, y + .5, x + .5);
        }
      }
      const x = Tensor.from(Float32Array.from(values), 3, { grid: Grid.dense(1), side });
      const box = [0.25, 0.25, 0.1, 0.75, 1, 0.5];
      const out: Triple = [2, 3, 4];
      const aligned = align(x, Float32Array.from(box), out);
      assertEquals(aligned.rows, 24);
      const got = aligned.read();
      let at = 0;
      for (let i = 0; i < out[0]; i++) {
        for (let j = 0; j < out[1]; j++) {
          for (let k = 0; k < out[2]; k++) {
            [i, j, k].forEach((bin, d) => {
              const want = side[d] * (box[d] + (bin + .5) / out[d] * (box[d + 3] - box[d]));
              // Points within half a voxel of the border are clamped to its centre.
              assertAlmostEquals(got[at++], want, box[d + 3] === 1 ? .13 : 1e-4);
            });
          }
        }
      }
    })
  ),
);
