import { assertEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { batchNorm } from "../../lib/ops/batchnorm.ts";
import { instanceNorm } from "../../lib/ops/norm.ts";
import { conv3d } from "../../lib/ops/conv3d.ts";
import { type Dtype, Grid, scope, Tensor, volume } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";
import { close, wave } from "./wave.ts";

golden("instanceNorm", ({ x, gamma = null, beta = null, residual }, { slope }) => {
  return instanceNorm(x, gamma, beta, { residual, slope });
});
golden("batchNorm", ({ x }) => batchNorm(x));

Deno.test("instanceNorm: a sample with one visible voxel is an error that names the patch", async () => {
  await scope(() => {
    const grid = new Grid(2, [1, 1, 2], new Uint8Array([1, 1, 0, 1]));
    const x = Tensor.full(1, 3, 4, { grid, side: [1, 1, 1] });
    assertThrows(() => instanceNorm(x, null, null), UserError, "patch 1");
  });
  assertEmpty();
});

Deno.test("instanceNorm: long sums are exact and a constant channel gives beta", async () => {
  await scope(() => {
    const rows = 40_000;
    const values = Float32Array.from({ length: 2 * rows }, (_, i) => i % 2 ? 7 : 1000 + (i / 2) % 2);
    const x = Tensor.from(values, 2, { grid: Grid.dense(1), side: [40, 40, 25] });
    const y = instanceNorm(x, null, Tensor.full(3, 1, 2)).read();
    assertEquals(y.slice(0, 4).map(Math.fround), new Float32Array([y[0], 3, y[2], 3]));
    const expected = 0.5 / Math.sqrt(0.25 + 1e-5);
    assertEquals([y[0], y[2]].map((v) => Math.abs(Math.abs(v - 3) - expected) < 1e-5), [true, true]);
  });
  assertEmpty();
});

Deno.test("instanceNorm: sums that a convolution left are those of its values, far from zero too", async () => {
  const [c, side] = [32, [4, 8, 8] as const];
  const visible = Uint8Array.of(1, 0, 1, 1, 0, 1, 0, 1);
  const values = (dtype: Dtype, joined: boolean, left: boolean) =>
    scope(() => {
      const grid = new Grid(2, [1, 2, 2], visible);
      const of = (c: number) =>
        Tensor.from(wave(grid.blocks * volume(side) * c, 0.37, 1, 0.1), c, { grid, side }, dtype);
      const x = joined ? [of(16), of(16)] as const : of(32);
      const weight = Tensor.from(wave(c * 32 * 27, 0.71, 3, 0.1), 32 * 27);
      const bias = Tensor.from(wave(c, 0.9, 4, dtype === "f32" ? 1000 : 10), c);
      return instanceNorm(conv3d(x, weight, bias, 1, left), null, null, { slope: 0.01 }).read();
    });
  for (const dtype of ["f32", "bf16"] as const) {
    for (const joined of [false, true]) {
      close(
        await values(dtype, joined, true),
        await values(dtype, joined, false),
        dtype === "f32" ? 1e-6 : 1e-2,
      );
    }
  }
  assertEmpty();
});
