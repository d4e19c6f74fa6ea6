/** Defects of the published masked transformers, each a test that fails on the published code. */
import { assertEquals } from "@std/assert";
import { primus } from "../../lib/arch/primus.ts";
import { Tape } from "../../lib/autograd.ts";
import { drawMask, hiddenVoxels } from "../../lib/methods/masking.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, scope, Tensor, volume } from "../../lib/tensor.ts";
import { leakFree, wave } from "../ops/wave.ts";

for (const hidden of ["drop", "swap"] as const) {
  Deno.test(
    `D05 ${hidden}: the loss counts exactly the voxels that the encoder does not see, on three different sides`,
    leakFree(() =>
      scope(() => {
        using parameters = new Parameters(1);
        const patch = [16, 24, 32] as const;
        const network = primus("tiny", 24, 2, 2).build(parameters, 1, 1, { patch, hidden });
        const image = Tensor.from(wave(2 * volume(patch), 0.9, 0.1), 1, {
          grid: Grid.dense(2),
          side: patch,
        });
        const mask = drawMask(new Rng("tokens"), 2, patch, 8, 0.75);
        const { tape, result: loss } = Tape.record([image], () => {
          const [tokens] = network.encode(image, mask.visible);
          return dot(tokens, Tensor.from(wave(tokens.length, 0.77, 0.2), tokens.channels));
        });
        const seen = tape.backward(loss).get(image)!.read();
        const hiddenHere = hiddenVoxels(mask, 2, patch, 8);
        assertEquals(seen.map((v) => Number(v === 0)), hiddenHere);
      })
    ),
  );
}

Deno.test(
  "D06: pretraining and fine-tuning put every token at the same place",
  leakFree(() =>
    scope(() => {
      const patch = [16, 24, 32] as const;
      const [pretrained, tuned] = [new Parameters(1), new Parameters(2)];
      const student = primus("tiny", 24, 2, 2).build(pretrained, 1, 1, { patch, hidden: "drop" });
      const network = primus("tiny", 24, 2, 2).build(tuned, 1, 3, { patch });
      for (const [name, tensor] of tuned.tensors) {
        if (/^(eva|down_projection)\./.test(name)) tensor.write(pretrained.tensors.get(name)!.read());
      }
      const image = Tensor.from(wave(volume(patch), 0.9, 0.1), 1, { grid: Grid.dense(1), side: patch });
      const visible = new Uint8Array(24).fill(1);
      assertEquals(student.encode(image, visible)[0].read(), network.encode(image)[0].read());
      pretrained[Symbol.dispose]();
      tuned[Symbol.dispose]();
    })
  ),
);
