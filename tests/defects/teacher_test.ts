/** What the published teacher-student training gets wrong, checked on ours. */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { cCva } from "../../lib/methods/c-cva.ts";
import { cva } from "../../lib/methods/cva.ts";
import { projector } from "../../lib/methods/heads.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { Rng } from "../../lib/rng.ts";
import { scope, Tensor } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { leakFree } from "../ops/wave.ts";
import { batch } from "../parity/batch.ts";
import { families, tiny, tinyRun } from "../parity/tiny.ts";

Deno.test(
  "D12: what cva aligns with is the cosine, about 2 before training, where Gram's is below 0.1",
  leakFree(async () => {
    using trainer = new Trainer(tiny, cva, tinyRun(cva));
    const metric = await trainer.step(0, batch(0, 16, 2, 2));
    assertAlmostEquals(metric!.alignment, 2, 0.1);
    const { reconstruction, alignment, contrastive, loss } = metric!;
    assertAlmostEquals(loss, 5 * reconstruction + alignment + 0.1 * contrastive, 1e-5);
  }),
);

Deno.test(
  "D13: the state of a run holds a teacher that is neither the student nor where it started",
  leakFree(async () => {
    using trainer = new Trainer(tiny, cva, tinyRun(cva));
    const name = "encoder.stages.0.blocks.0.conv1.conv.weight";
    const teacher = () => trainer.state().get(`teacher.${name}`)!.read();
    const before = teacher();
    for (let step = 0; step < 3; step++) await trainer.step(step, batch(step, 16, 2, 2));
    assertNotEquals(teacher(), before);
    assertNotEquals(teacher(), trainer.parameters.tensors.get(name)!.read());
    const names = [...trainer.state().keys()].filter((key) => key.startsWith("teacher."));
    const followed = [...trainer.parameters.tensors.keys()].filter((key) =>
      /^(encoder|projector)\./.test(key)
    );
    assert(followed.every((key) => names.includes(`teacher.${key}`)));
  }),
);

Deno.test(
  "D24: a contrastive term with one image a step is refused, and nothing stays alive",
  leakFree(() => {
    assertThrows(() => new Trainer(tiny, cva, tinyRun(cva, tiny, { batch: 1 })), UserError, "--batch 1");
  }),
);

for (const arch of [tiny, families().find((a) => a.kind === "token")!]) {
  Deno.test(
    `D07 on ${arch.name}: after training, the teacher's projector gives channels of mean 0 and variance 1`,
    leakFree(async () => {
      using trainer = new Trainer(arch, cva, tinyRun(cva, arch));
      const { patch } = trainer.config;
      for (let step = 0; step < 3; step++) await trainer.step(step, batch(step, patch[0], 2, 2));
      await scope(() => {
        const state = trainer.state();
        using copies = new Parameters(0);
        const channels = state.get("teacher.projector.0.weight")!.channels;
        const project = projector(copies, "projector", channels, arch.headWidth);
        for (const [name, tensor] of copies.tensors) tensor.write(state.get(`teacher.${name}`)!.read());
        const statistics = [...state.keys()].filter((name) => /running|num_batches/.test(name));
        assertEquals(statistics, []);
        const rng = new Rng("features");
        // Features as far from mean 0 and variance 1 as those of a network may be.
        const features = Float32Array.from({ length: 64 * channels }, () => 3 + 5 * rng.normal());
        const rows = project([Tensor.from(features, channels)]).read();
        for (let c = 0; c < arch.headWidth; c++) {
          const values = Array.from({ length: 64 }, (_, i) => rows[i * arch.headWidth + c]);
          const mean = values.reduce((a, b) => a + b) / 64;
          assertAlmostEquals(mean, 0, 1e-5);
          assertAlmostEquals(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / 64, 1, 0.05);
        }
      });
    }),
  );
}

Deno.test(
  "D12b: c-cva takes steps, and every term that it names is a number",
  leakFree(async () => {
    using trainer = new Trainer(tiny, cCva, tinyRun(cCva));
    for (let step = 0; step < 3; step++) {
      const metric = await trainer.step(step, batch(step, 16, 2, 2));
      for (const term of ["reconstruction", "alignment", "contrastive"]) {
        assert(Number.isFinite(metric![term]));
      }
      assertAlmostEquals(
        metric!.loss,
        5 * metric!.reconstruction + 0.2 * metric!.alignment + 0.1 * metric!.contrastive,
        1e-4,
      );
    }
  }),
);
