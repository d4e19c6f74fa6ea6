/** Values that are dropped and made again: the same losses and gradients, less memory in between. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Tape } from "voxalign/autograd.ts";
import { swiglu } from "voxalign/ops/activation.ts";
import { conv3d } from "voxalign/ops/conv3d.ts";
import { layerNorm } from "voxalign/ops/layer_norm.ts";
import { linear } from "voxalign/ops/linear.ts";
import { instanceNorm } from "voxalign/ops/norm.ts";
import { Rng } from "voxalign/rng.ts";
import { alone, Grid, memory, scope, Tensor } from "voxalign/tensor.ts";

const rng = new Rng(3, "drop");
const draw = (rows: number, channels: number) => Tensor.uniform(rng, -1, 1, rows, channels);

Deno.test("dropped values come back bit by bit, in the backward pass too", async () => {
  await scope(() => {
    const layout = { grid: Grid.dense(2), side: [4, 6, 8] as const };
    const x = Tensor.from(draw(2 * 192, 5).read(), 5, layout);
    const [w1, w2, gamma, beta] = [draw(7, 5 * 27), draw(7, 7 * 27), draw(1, 7), draw(1, 7)];
    const [gate, value, row] = [draw(9, 7), draw(9, 7), draw(1, 9)];
    const leaves = [w1, w2, gamma, beta, gate, value, row];
    const run = (drops: boolean) => {
      const { tape, result } = Tape.record(leaves, () => {
        const first = conv3d(x, w1, null);
        const a = instanceNorm(first, gamma, beta, { slope: 0.01 });
        const b = instanceNorm(conv3d(a, w2, null), gamma, beta, { residual: a, slope: 0.01 });
        const c = swiglu(linear(b, gate), linear(b, value));
        const d = layerNorm(c, row, row);
        const y = linear(d, row);
        if (drops) [a, b, c, d].forEach((t) => t.drop());
        return y;
      });
      const start = Tensor.full(1, result.rows, 1, layout);
      const gradients = tape.backward(result, [], start);
      return [result, ...leaves.map((t) => gradients.get(t)!)].map((t) => t.read());
    };
    assertEquals(run(true), run(false));
  });
});

Deno.test("a dropped tensor takes no memory until it is read", async () => {
  await scope(() => {
    const x = Tensor.from(draw(1000, 64).read(), 64, { grid: Grid.dense(1), side: [10, 10, 10] });
    const y = instanceNorm(x, null, null);
    const values = y.read();
    const bytes = () => (x.read(), memory().bytes); // when all work is done and forgotten
    const before = bytes();
    y.drop();
    assertEquals(bytes(), before - 4 * 64_000);
    y.drop();
    assertEquals(y.read(), values);
    assertEquals(bytes(), before);
    x.drop(); // cannot be made again: stays
    assert(x.read().length === 64_000);
    const kept = alone(() => {
      const inner = Tensor.from(values, 64, x.layout);
      const out = instanceNorm(inner, null, null);
      out.drop(); // is there again when its input goes
      return out;
    });
    kept.drop();
    assertEquals(kept.read(), instanceNorm(y, null, null).read());
    y[Symbol.dispose]();
    assertThrows(() => y.handle, Error, "freed");
  });
});
