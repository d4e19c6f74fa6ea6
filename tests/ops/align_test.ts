import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Rng } from "../../lib/rng.ts";
import { adaptivePool } from "../../lib/ops/adaptive_pool.ts";
import { align } from "../../lib/ops/align.ts";
import { cosineLoss, rollHalf } from "../../lib/ops/cosine.ts";
import { Grid, scope, type Side, Tensor } from "../../lib/tensor.ts";
import { channelsLast, judge, leakFree, wave } from "./wave.ts";

const boxes = Float32Array.of(0.1, 0.2, 0.3, 1, 1, 0.9, 0, 0, 0.05, 0.7, 0.85, 1);
const input = () =>
  Tensor.from(wave(2 * 5 * 6 * 4 * 3, 0.9, 0.3), 3, { grid: Grid.dense(2), side: [5, 6, 4] });

Deno.test(
  "align: values and gradient as grid_sample with pixel centres and the mean of each bin",
  leakFree(() => scope(() => judge("align", input(), (x) => align(x, boxes, [3, 2, 4])))),
);

Deno.test(
  "D01 D02 D03: align published, values and gradient as grid_sample with exchanged axes and aligned corners",
  leakFree(() =>
    scope(() => judge("align_published", input(), (x) => align(x, boxes, [3, 2, 4], 2, "published")))
  ),
);

Deno.test(
  "adaptivePool: uneven windows and more bins than voxels as torch",
  leakFree(() => scope(() => judge("adaptive_pool", input(), (x) => adaptivePool(x, [2, 9, 4])))),
);

Deno.test(
  "adaptivePool: the golden ramp, 10 to 16",
  leakFree(() =>
    scope(() => {
      const x = Tensor.from(Float32Array.from({ length: 10 }, (_, i) => i), 1, {
        grid: Grid.dense(1),
        side: [10, 1, 1],
      });
      const want = [0, .5, 1, 1.5, 2.5, 3, 3.5, 4, 5, 5.5, 6, 6.5, 7.5, 8, 8.5, 9];
      assertEquals(Array.from(adaptivePool(x, [16, 1, 1]).read()), want);
    })
  ),
);

Deno.test(
  "D01 D02: align, golden cosine of consistent view alignment, correct and as published",
  leakFree(() =>
    scope(() => {
      const grid = Grid.dense(4);
      const volume = (a: number, b: number) =>
        Tensor.from(channelsLast(wave(4 * 5 * 216, a, b), 4, 5, 216), 5, { grid, side: [6, 6, 6] });
      const [p, z] = [volume(.7, .1), volume(1.3, .4)];
      const b = Float32Array.of(
        .1,
        .2,
        .3,
        1,
        1,
        1,
        .3,
        .2,
        .1,
        1,
        1,
        1,
        0,
        0,
        0,
        .9,
        .8,
        .7,
        0,
        0,
        0,
        .7,
        .8,
        .9,
      );
      const loss = (mode: "correct" | "published") => {
        const target = rollHalf(align(z, b, [2, 2, 2], 2, mode), 8);
        return cosineLoss(align(p, b, [2, 2, 2], 2, mode), target).read()[0];
      };
      assertAlmostEquals(loss("correct"), 1.996176, 2e-6);
      assertAlmostEquals(loss("published"), 1.991954, 2e-6);
    })
  ),
);

/** Features that are coordinates: voxel centres of a view that starts at `start`. */
function coordinates(start: Side, side: Side): Float32Array {
  const out: number[] = [];
  for (let z = 0; z < side[0]; z++) {
    for (let y = 0; y < side[1]; y++) {
      for (let x = 0; x < side[2]; x++) out.push(start[0] + z + .5, start[1] + y + .5, start[2] + x + .5);
    }
  }
  return Float32Array.from(out);
}

Deno.test(
  "D01 D02: align, both views of random pairs (overlap 0.4 and up of 32 voxels) give the same coordinates to 0.05 voxel, published ones do not",
  leakFree(() =>
    scope(() => {
      const rng = new Rng(7);
      // The smallest patch and the smallest overlap that pairs have: 32 voxels, 0.4 of an axis. An overlap under 11.2
      // voxels would lose more than 0.05 voxel to the clamp at the border: its outer points lie beyond voxel centres.
      const side: Side = [32, 36, 40];
      const grid = Grid.dense(2);
      let published = 0;
      for (let k = 0; k < 12; k++) {
        const axes = side.map((s) => {
          const shift = Math.floor(rng.uniform(0, s * .6)) * (rng.uniform(0, 1) < .5 ? -1 : 1);
          return {
            shift,
            a: [Math.max(0, shift) / s, Math.min(s, s + shift) / s],
            b: [Math.max(0, -shift) / s, Math.min(s, s - shift) / s],
          };
        });
        const lohi = (v: "a" | "b") => [0, 1].flatMap((e) => axes.map((x) => x[v][e]));
        const shift = axes.map((x) => x.shift) as unknown as Side;
        const values = [...coordinates([0, 0, 0], side), ...coordinates(shift, side)];
        const x = Tensor.from(Float32Array.from(values), 3, { grid, side });
        const error = (mode: "correct" | "published") => {
          const y = align(x, Float32Array.from([...lohi("a"), ...lohi("b")]), [7, 7, 7], 2, mode).read();
          const half = y.length / 2;
          return y.subarray(0, half).reduce((m, v, i) => Math.max(m, Math.abs(v - y[half + i])), 0);
        };
        const found = error("correct");
        assert(found < 0.05, `pair ${k}, shift ${shift}: ${found} voxels apart`);
        published = Math.max(published, error("published"));
      }
      assert(published > 2, `the published alignment is off by ${published} voxels`);
    })
  ),
);
