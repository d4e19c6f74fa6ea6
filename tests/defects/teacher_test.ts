/** What the published teacher-student training gets wrong (methods.md section 7), checked on ours. */
import { assert, assertAlmostEquals, assertNotEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { cva } from "../../lib/methods/cva.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { leakFree } from "../ops/wave.ts";
import { batch } from "../parity/batch.ts";
import { tiny, tinyRun } from "../parity/tiny.ts";

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
