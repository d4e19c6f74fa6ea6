/** Cross entropy and its gradient beside PyTorch (fixtures/make_image_metrics.py). */
import { assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { crossEntropy } from "../../lib/ops/segmentation.ts";
import { memory, scope, Tensor, wait } from "../../lib/tensor.ts";

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
