import { assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { UserError } from "../../lib/errors.ts";
import { crossEntropy, diceCrossEntropy, softmax } from "../../lib/ops/segmentation.ts";
import { Grid, memory, scope, type Side, Tensor, wait } from "../../lib/tensor.ts";
import { close, goldens, judge, leakFree, wave } from "./wave.ts";

const side: Side = [3, 4, 2];
const labels = Uint8Array.from({ length: 48 }, (_, i) => i * 7 % 11 % 4);
const logits = () => Tensor.from(wave(192, .9, .3, 3), 4, { grid: Grid.dense(2), side });

Deno.test(
  "diceCrossEntropy: value and gradient as torch, per sample and over the batch",
  leakFree(() =>
    scope(() => {
      judge("dice_ce", logits(), (z) => diceCrossEntropy(z, labels));
      judge("dice_ce_batch", logits(), (z) => diceCrossEntropy(z, labels, { batchDice: true }));
    })
  ),
);

Deno.test(
  "diceCrossEntropy: uniform logits on half a cube, and on an empty one",
  leakFree(() =>
    scope(() => {
      const z = Tensor.full(0, 64, 2, { grid: Grid.dense(1), side: [4, 4, 4] });
      const half = new Uint8Array(64).fill(1, 32);
      assertAlmostEquals(diceCrossEntropy(z, half).read()[0], Math.LN2 - 0.5, 1e-6);
      assertAlmostEquals(diceCrossEntropy(z, new Uint8Array(64)).read()[0], Math.LN2 - 3.125e-7, 1e-6);
    })
  ),
);

Deno.test(
  "diceCrossEntropy: labels that do not fit are refused in one sentence",
  leakFree(() =>
    scope(() => {
      const z = logits();
      assertThrows(() => diceCrossEntropy(z, labels.subarray(1)), UserError, "47");
      const loss = diceCrossEntropy(z, labels.map((v) => v === 3 ? 9 : v));
      assertThrows(() => loss.read(), UserError, "9 is not one of the 4 classes");
    })
  ),
);

Deno.test(
  "softmax: as torch",
  leakFree(() => scope(() => close(softmax(logits()).read(), goldens.softmax.y))),
);

/** fixtures/make_image_metrics.py. */
const fixture = JSON.parse(
  await Deno.readTextFile(new URL("../../fixtures/image_metrics.json", import.meta.url)),
);

Deno.test("cross entropy: loss and gradient equal PyTorch's; a label that is no class is refused", async () => {
  const before = memory().tensors;
  const { logits, labels, loss, gradient } = fixture.cross_entropy;
  await scope(async () => {
    const x = Tensor.from(Float32Array.from(logits.flat()), 3);
    const { tape, result } = Tape.record([x], () => crossEntropy(x, Float32Array.from(labels)));
    const dx = tape.backward(result, []).get(x)!;
    await wait();
    assertAlmostEquals(result.read()[0], loss, 1e-6);
    dx.read().forEach((v, i) => assertAlmostEquals(v, gradient.flat()[i], 1e-7));
    crossEntropy(x, Float32Array.of(0, 1, 2, 3, 0));
    await assertRejects(() => wait(), Error, "3 is not one of the 3 classes");
  });
  assertEquals(memory().tensors, before);
});
