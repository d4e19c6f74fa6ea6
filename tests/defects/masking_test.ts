/** What the published masked autoencoders get wrong, checked on ours. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Batch } from "../../lib/data/loader.ts";
import { UserError } from "../../lib/errors.ts";
import { cva } from "../../lib/methods/cva.ts";
import { mae } from "../../lib/methods/mae.ts";
import { drawMask } from "../../lib/methods/masking.ts";
import { s3d } from "../../lib/methods/s3d.ts";
import { reconstructionLoss } from "../../lib/ops/reconstruction.ts";
import { Rng } from "../../lib/rng.ts";
import { scope, Tensor } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { leakFree } from "../ops/wave.ts";
import { batch } from "../parity/batch.ts";
import { tiny, tinyRun } from "../parity/tiny.ts";

/** Output and hidden voxels of one forward pass. */
async function forward(
  trainer: Trainer,
  data: Batch,
): Promise<{ output: Float32Array; hidden: Float32Array }> {
  return await scope(() => {
    const { output, hidden } = trainer.learner.loss({ batch: data, random: new Rng("mask") });
    return { output: output.read(), hidden };
  });
}

for (const method of [s3d, mae, cva]) {
  Deno.test(
    `D04 ${method.name}: other content in the hidden voxels changes no bit of the reconstruction`,
    leakFree(async () => {
      using trainer = new Trainer(tiny, method, tinyRun(method));
      const data = batch(0, 16, 2, method.views);
      const { output, hidden } = await forward(trainer, data);
      const rng = new Rng("other content");
      const other = data.images.map((v, i) => hidden[i] ? 3 * rng.normal() : v);
      assertEquals((await forward(trainer, { ...data, images: other })).output, output);
      // The same change in the visible voxels does change it.
      const seen = data.images.map((v, i) => hidden[i] ? v : v + 0.1 * rng.normal());
      const { output: moved } = await forward(trainer, { ...data, images: seen });
      assert(moved.some((v, i) => Math.abs(v - output[i]) > 1e-3));
    }),
  );
}

Deno.test("D04b: with cells of 32 voxels at patch 160 the bottleneck is masked, and equally in every sample", () => {
  const mask = drawMask(new Rng("mask"), 2, [160, 160, 160], 32, 0.75);
  assertEquals(mask.dims, [5, 5, 5]);
  for (const n of [0, 1]) {
    const cells = mask.visible.subarray(n * 125, (n + 1) * 125);
    assertEquals(cells.reduce((sum, v) => sum + v, 0), 32);
  }
});

Deno.test(
  "D04d: the mask is a function of seed and step",
  leakFree(async () => {
    const hiddenBy = async (seed: number) => {
      const options = { ...tinyRun(s3d).options, low: 0.75, high: 0.75 };
      using trainer = new Trainer(tiny, s3d, tinyRun(s3d, tiny, { seed, options }));
      return await scope(() =>
        [0, 1].map((step) =>
          trainer.learner.loss({ batch: batch(0, 16, 2, 1), random: new Rng(seed, "mask", step) }).hidden
        )
      );
    };
    const [first, again, other] = [await hiddenBy(1), await hiddenBy(1), await hiddenBy(2)];
    assertEquals(again, first);
    assert(first[0].some((v, i) => v !== first[1][i]), "two steps hide the same cells");
    assert(first[0].some((v, i) => v !== other[0][i]), "two seeds hide the same cells");
  }),
);

Deno.test(
  "D23: a batch with nothing hidden has loss 0, and a mask that hides nothing or everything is refused",
  leakFree(() =>
    scope(() => {
      const of = (value: number) => Tensor.full(value, 8, 1);
      for (const kind of ["mse", "huber", "l1"] as const) {
        assertEquals(reconstructionLoss(of(1), of(3), of(0), kind).read()[0], 0);
      }
      for (const ratio of [0, 0.01, 1]) {
        assertThrows(() => drawMask(new Rng(0), 1, [16, 16, 16], 4, ratio), UserError, "ratio");
      }
    })
  ),
);
