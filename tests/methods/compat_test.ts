/** Published behaviour through the switches of --compat: golden values of the published code, pairs, S3D's input. */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { drawPair, type Triple } from "../../lib/data/views.ts";
import { UserError } from "../../lib/errors.ts";
import { alignDefects, type Compat, pairDefects } from "../../lib/methods/compat.ts";
import { cva } from "../../lib/methods/cva.ts";
import { mae } from "../../lib/methods/mae.ts";
import { exchanged } from "../../lib/methods/masking.ts";
import type { Method } from "../../lib/methods/method.ts";
import { s3d } from "../../lib/methods/s3d.ts";
import { align } from "../../lib/ops/align.ts";
import { cosineLoss, rollHalf } from "../../lib/ops/cosine.ts";
import { gramLoss } from "../../lib/ops/gram.ts";
import { ntXent } from "../../lib/ops/ntxent.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { channelsLast, leakFree, wave } from "../ops/wave.ts";
import { batch } from "../parity/batch.ts";
import { families, tiny, tinyRun } from "../parity/tiny.ts";

/** Boxes of the golden vectors, first views then second views. */
const boxes = Float32Array.from(
  [[.1, .2, .3, 1, 1, 1], [.3, .2, .1, 1, 1, 1], [0, 0, 0, .9, .8, .7], [0, 0, 0, .7, .8, .9]].flat(),
);

Deno.test(
  "compat: each alignment switch gives its golden values, D01 D02",
  leakFree(() =>
    scope(() => {
      const volume = (a: number, b: number) =>
        Tensor.from(channelsLast(wave(4 * 5 * 216, a, b), 4, 5, 216), 5, {
          grid: Grid.dense(4),
          side: [6, 6, 6],
        });
      const losses = (...switches: Compat[]) => {
        const defects = alignDefects(new Set(switches));
        const p = align(volume(.7, .1), boxes, [2, 2, 2], 2, defects);
        const z = rollHalf(align(volume(1.3, .4), boxes, [2, 2, 2], 2, defects), 8);
        return [gramLoss(p, z, 8), cosineLoss(p, z), ntXent(p, z).loss].map((loss) => loss.read()[0]);
      };
      const near = (got: number[], want: number[]) =>
        want.forEach((value, i) => assertAlmostEquals(got[i], value, 2e-5));
      near(losses("nnssl-align-axes", "nnssl-align-corners", "nnssl-align-size"), [
        2.654149,
        1.991954,
        4.603186,
      ]);
      near(losses("nnssl-align-corners"), [2.560077, 1.998520, 4.588815]);
      assertAlmostEquals(losses()[1], 1.996176, 2e-5);
    })
  ),
);

Deno.test(
  "compat nnssl-gram-for-cosine: cva then has the Gram term, and nothing else changes, D12",
  leakFree(async () => {
    const few = tinyRun(cva);
    const run = { ...few, options: { ...few.options, aligned: "7" } }; // the Gram term grows with the positions
    using right = new Trainer(tiny, cva, run);
    using published = new Trainer(tiny, cva, { ...run, compat: ["nnssl-gram-for-cosine"] });
    const data = batch(0, 16, 2, 2);
    const [a, b] = [await right.step(0, data), await published.step(0, data)];
    assert(Math.abs(a!.alignment - 2) < 0.5 && b!.alignment > 10, `${a!.alignment} and ${b!.alignment}`);
    assertEquals([a!.reconstruction, a!.contrastive], [b!.reconstruction, b!.contrastive]);
  }),
);

Deno.test("compat nnssl-box, nnssl-pair-order: boxes up to 2 voxels too large, the first view always lower, D09 D10", () => {
  const [patch, shape]: Triple[] = [[32, 32, 32], [80, 80, 80]];
  const volumes = [{ id: "v", shape }];
  let most = 0;
  for (let index = 0; index < 300; index++) {
    const draw = (...switches: Compat[]) => drawPair(1, index, volumes, patch, false, pairDefects(switches));
    const box = draw("nnssl-box");
    for (const d of [0, 1, 2]) {
      const shared = 32 - Math.abs(box.a.box[d] - box.b.box[d]);
      const excess = 32 * (box.overlap.a[d + 3] - box.overlap.a[d]) - shared;
      assert(excess >= -1e-9 && excess < 2 && shared % 2 === 0, `${excess} voxels at ${index}`);
      most = Math.max(most, excess);
      const order = draw("nnssl-pair-order");
      assert(order.b.box[d] >= order.a.box[d]);
    }
    const [order, plain] = [draw("nnssl-pair-order"), draw()];
    assertEquals(
      order.overlap.a.map((v, i) => i < 3 ? order.overlap.a[i + 3] - v : 0),
      plain.overlap.a.map((v, i) => i < 3 ? plain.overlap.a[i + 3] - v : 0),
    );
  }
  assert(most > 1);
});

Deno.test("compat nnssl-pair-fallback: an axis without room has both crops at 0 and a box that claims a part, D08", () => {
  // Where the crop is as long as the volume there is never room for two.
  const [patch, shape]: Triple[] = [[32, 32, 8], [40, 40, 8]];
  let fallen = 0;
  for (let index = 0; index < 300; index++) {
    const defects = pairDefects(["nnssl-pair-fallback"]);
    const { a, b, overlap } = drawPair(1, index, [{ id: "v", shape }], patch, false, defects);
    assertEquals([a.box[2], b.box[2]], [0, 0]);
    const claimed = overlap.a[5] - overlap.a[2];
    assert(claimed < 1 && claimed > 0, `${claimed}`);
    fallen += Number(a.box[1] === 0 && b.box[1] === 0);
    const right = drawPair(1, index, [{ id: "v", shape }], patch, false).overlap.a;
    assertEquals([right[2], right[5]], [0, 1]);
  }
  assert(fallen > 0, "no pair falls back on an axis that has little room");
});

Deno.test(
  "compat nnssl-sparse-input: hidden voxels then reach the output, D04",
  leakFree(async () => {
    const run = { ...tinyRun(s3d), compat: ["nnssl-sparse-input" as const] };
    using trainer = new Trainer(tiny, s3d, run);
    const data = batch(0, 16, 2, 1);
    const forward = (images: Float32Array) =>
      scope(() => {
        const { output, hidden } = trainer.learner.loss({
          batch: { ...data, images },
          random: new Rng("mask"),
        });
        return { output: output.read(), hidden };
      });
    const { output, hidden } = await forward(data.images);
    const { output: moved } = await forward(data.images.map((v, i) => hidden[i] ? v + 1 : v));
    assert(moved.some((v, i) => Math.abs(v - output[i]) > 1e-3));
    const dense = { ...run, options: { ...run.options, sparse: false } };
    assertThrows(() => new Trainer(tiny, s3d, dense), UserError, "nnssl-sparse-input");
  }),
);

Deno.test(
  "compat nnssl-loss-map, nnssl-teacher-statistics: on tokens they change their term, on CNNs they are refused, D05 D07",
  leakFree(async () => {
    const tokens = families().find((arch) => arch.kind === "token")!;
    const first = async (method: Method, ...compat: Compat[]) => {
      using trainer = new Trainer(tokens, method, { ...tinyRun(method, tokens), compat });
      return (await trainer.step(0, batch(0, 16, 2, method.views)))!;
    };
    const [a, b] = [await first(mae), await first(mae, "nnssl-loss-map")];
    assert(a.loss !== b.loss, `${a.loss}`);
    const [c, d] = [await first(cva), await first(cva, "nnssl-teacher-statistics")];
    assertEquals(c.reconstruction, d.reconstruction);
    assert(c.contrastive !== d.contrastive, `${c.contrastive}`);
    for (const [method, name] of [[mae, "nnssl-loss-map"], [cva, "nnssl-teacher-statistics"]] as const) {
      assertThrows(() => new Trainer(tiny, method, { ...tinyRun(method), compat: [name] }), UserError, name);
    }
    const mask = { dims: [2, 2, 1] as const, visible: Uint8Array.of(1, 0, 1, 1) };
    assertEquals([...exchanged(mask).visible], [1, 1, 0, 1]);
  }),
);

for (const off of ["sparse", "token", "densify", "dynamic"]) {
  Deno.test(
    `s3d with ${off}=false trains, and has only the parameters it uses`,
    leakFree(async () => {
      const run = tinyRun(s3d);
      using trainer = new Trainer(tiny, s3d, { ...run, options: { ...run.options, [off]: false } });
      const names = [...trainer.parameters.tensors.keys()].join();
      assertEquals(names.includes("mask_tokens"), off !== "token");
      assertEquals(names.includes("densify_projs"), off !== "densify");
      const data = batch(0, 16, 2, 1);
      const first = (await trainer.step(0, data))!.loss;
      let last = first;
      for (let step = 1; step < 8; step++) last = (await trainer.step(step, data))!.loss;
      assert(last < first, `${first} to ${last}`);
    }),
  );
}
