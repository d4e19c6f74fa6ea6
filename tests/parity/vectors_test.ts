/** Golden vectors of the published losses and schedules, as they stand. */
import { assertAlmostEquals } from "@std/assert";
import { align } from "../../lib/ops/align.ts";
import { cosineLoss, rollHalf } from "../../lib/ops/cosine.ts";
import { ntXent } from "../../lib/ops/ntxent.ts";
import { reconstructionLoss } from "../../lib/ops/reconstruction.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { poly } from "../../lib/train/schedule.ts";
import { channelsLast, leakFree, wave } from "../ops/wave.ts";

Deno.test("schedule: poly in the middle, and warm-up at its start, end and after", () => {
  assertAlmostEquals(poly(1e-2, 500, 1000), 5.3589e-3, 1e-7);
  assertAlmostEquals(poly(3e-4, 0, 1000, 50), 6e-6, 1e-12);
  assertAlmostEquals(poly(3e-4, 49, 1000, 50), 3e-4, 1e-12);
  assertAlmostEquals(poly(3e-4, 50, 1000, 50), 3e-4, 1e-12);
});

// deno-fmt-ignore
const BOXES = Float32Array.of(
  .1, .2, .3, 1, 1, 1,
  .3, .2, .1, 1, 1, 1,
  0, 0, 0, .9, .8, .7,
  0, 0, 0, .7, .8, .9,
);

Deno.test(
  "D01 D02: the golden batch of consistent view alignment: Huber, MSE, contrastive, cosine in the common box",
  leakFree(() =>
    scope(() => {
      const side = [8, 8, 8] as const;
      const layout = { grid: Grid.dense(4), side };
      const y = Tensor.from(wave(4 * 512, .31, 0, 2), 1, layout);
      const target = Tensor.from(wave(4 * 512, .17, 1, 2), 1, layout);
      // Cells 0, 3 and 6 of 2^3 are visible in every crop.
      const hidden = Float32Array.from({ length: 4 * 512 }, (_, i) => {
        const [z, yy, x] = [(i >> 6) & 7, (i >> 3) & 7, i & 7].map((v) => v >> 2);
        return [0, 3, 6].includes(4 * z + 2 * yy + x) ? 0 : 1;
      });
      const weight = Tensor.from(hidden, 1, layout);
      assertAlmostEquals(reconstructionLoss(y, target, weight, "huber").read()[0], 1.153652, 2e-6);
      assertAlmostEquals(reconstructionLoss(y, target, weight, "mse").read()[0], 3.818677, 4e-6);
      const features = (a: number, b: number) =>
        Tensor.from(channelsLast(wave(4 * 5 * 216, a, b), 4, 5, 216), 5, {
          grid: layout.grid,
          side: [6, 6, 6],
        });
      const p = align(features(.7, .1), BOXES, [2, 2, 2]);
      const z = rollHalf(align(features(1.3, .4), BOXES, [2, 2, 2]), 8);
      assertAlmostEquals(cosineLoss(p, z).read()[0], 1.996176, 2e-6);
      const image = rollHalf(Tensor.from(wave(20, 1.1, .5), 5), 1);
      assertAlmostEquals(ntXent(Tensor.from(wave(20, .9, .2), 5), image).loss.read()[0], 1.603531, 2e-6);
    })
  ),
);
