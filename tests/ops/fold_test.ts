import { assert, assertEquals } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { batchNorm, batchNormSilu } from "../../lib/ops/batchnorm.ts";
import { silu } from "../../lib/ops/activation.ts";
import { adaptivePool } from "../../lib/ops/adaptive_pool.ts";
import { concat } from "../../lib/ops/concat.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { fold } from "../../lib/ops/fold.ts";
import { linear, product } from "../../lib/ops/linear.ts";
import { linearPyramid } from "../../lib/ops/linear_pyramid.ts";
import { Rng } from "../../lib/rng.ts";
import { type Dtype, Grid, memory, scope, Tensor, wait } from "../../lib/tensor.ts";

const normals = (count: number, name: string) => {
  const rng = new Rng(3, name);
  return Float32Array.from({ length: count }, () => rng.normal());
};

/** Values of `body` and of the gradients of its inputs, for a fixed gradient of the result. */
async function run(inputs: Tensor[], body: () => Tensor): Promise<Float32Array[]> {
  return await scope(async () => {
    const { tape, result } = Tape.record(inputs, () => {
      const y = body();
      const g = Tensor.from(normals(y.length, "gradient"), y.channels);
      return { y, loss: dot(y, g) };
    });
    const gradients = tape.backward(result.loss, [result.y]);
    await wait();
    return [result.y, ...inputs.map((input) => gradients.get(input)!)].map((t) => t.read());
  });
}

/** The largest difference, in units of the largest value. */
function apart(a: Float32Array, b: Float32Array): number {
  assertEquals(a.length, b.length);
  const top = b.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-6);
  return a.reduce((m, v, i) => Math.max(m, Math.abs(v - b[i])), 0) / top;
}

Deno.test("fold: a linear layer, batch norm, another layer, batch norm as layer by layer, values and gradients", async () => {
  const [rows, c, o, last] = [300, 24, 33, 20];
  const x = Tensor.from(normals(rows * c, "x").map((v, i) => v + Math.sin(i % c)), c);
  const [w, b] = [Tensor.from(normals(o * c, "w"), c), Tensor.from(normals(o, "b"), o)];
  const [w2, b2] = [Tensor.from(normals(last * o, "w2"), o), Tensor.from(normals(last, "b2"), last)];
  const inputs = [x, w, w2];
  const plain = await run(inputs, () => batchNorm(linear(batchNorm(linear(x, w, b)), w2, b2)));
  const folded = await run(inputs, () => {
    const { weight, centre } = fold(x, w, b);
    const joined = product(w2, weight);
    return batchNorm(linear(x, joined, linear(centre, joined, b2)));
  });
  plain.forEach((want, i) => assert(apart(folded[i], want) < 2e-5, `${i}: ${apart(folded[i], want)}`));
  const alone = await run([x], () => {
    const { weight, centre } = Tape.none(() => fold(x, w, b));
    return linear(x, weight, Tape.none(() => linear(centre, weight)));
  });
  const norm = await run([x], () => batchNorm(linear(x, w, b)));
  assert(apart(alone[0], norm[0]) < 1e-5);
  [x, w, b, w2, b2].forEach((t) => t[Symbol.dispose]());
  await wait();
  assertEquals(memory().bytes, 0);
});

Deno.test("batchNormSilu as batchNorm, then silu, values and gradient", async () => {
  for (const [rows, c] of [[70, 33], [300, 32]]) {
    const x = Tensor.from(normals(rows * c, "x").map((v) => 3 * v + 1), c);
    const [got, want] = [await run([x], () => batchNormSilu(x)), await run([x], () => silu(batchNorm(x)))];
    got.forEach((values, i) => assert(apart(values, want[i]) < 1e-5, `${rows} ${c} ${i}`));
    x[Symbol.dispose]();
  }
  await wait();
  assertEquals(memory().bytes, 0);
});

for (const [dtype, bound] of [["f32", 1e-5], ["bf16", 2e-2]] as [Dtype, number][]) {
  Deno.test(`linearPyramid as linear on the levels pooled and joined, values and gradients, ${dtype}`, async () => {
    const [samples, out] = [2, 40];
    const grid = Grid.dense(samples);
    const levels = [[8, 5], [4, 3], [2, 7]].map(([side, c], k) =>
      Tensor.from(
        normals(samples * side ** 3 * c, `level ${k}`),
        c,
        { grid, side: [side, side, side] },
        dtype,
      )
    );
    const [w, b] = [Tensor.from(normals(out * 15, "w"), 15), Tensor.from(normals(out, "b"), out)];
    const inputs = [...levels, w, b];
    const joined = () => linear(levels.map((level) => adaptivePool(level, [8, 8, 8])).reduce(concat), w, b);
    const loss = (body: () => Tensor) =>
      scope(async () => {
        const { tape, result } = Tape.record(inputs, body);
        const start = Tensor.from(normals(result.length, "dy"), out, result.layout, dtype);
        const gradients = tape.backward(result, [], start);
        await wait();
        return [result, ...inputs.map((input) => gradients.get(input)!)].map((t) => t.read());
      });
    const [got, want] = [await loss(() => linearPyramid(levels, w, b)), await loss(joined)];
    got.forEach((values, i) => assert(apart(values, want[i]) < bound, `${i}: ${apart(values, want[i])}`));
    [...inputs, grid].forEach((t) => t[Symbol.dispose]());
    await wait();
    assertEquals(memory().bytes, 0);
  });
}
