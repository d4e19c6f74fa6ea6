/** bf16 storage: rounding, casts with gradient, types that do not fit, and every op against itself in f32. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { UserError } from "../../lib/errors.ts";
import { gelu, leakyRelu, silu, swiglu } from "../../lib/ops/activation.ts";
import { adaptivePool } from "../../lib/ops/adaptive_pool.ts";
import { attention } from "../../lib/ops/attention.ts";
import { cast } from "../../lib/ops/cast.ts";
import { concat, matrixRows } from "../../lib/ops/concat.ts";
import { conv3d, upconv3d } from "../../lib/ops/conv3d.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { densify, gatherBlocks } from "../../lib/ops/densify.ts";
import { add, scale } from "../../lib/ops/elementwise.ts";
import { gatherRows, plan } from "../../lib/ops/gather.ts";
import { layerNorm } from "../../lib/ops/layer_norm.ts";
import { layerScale } from "../../lib/ops/layer_scale.ts";
import { linear } from "../../lib/ops/linear.ts";
import { maxPool2 } from "../../lib/ops/maxpool.ts";
import { instanceNorm } from "../../lib/ops/norm.ts";
import { avgPool2, globalAverage } from "../../lib/ops/pool.ts";
import { softmaxPool } from "../../lib/ops/softmax_pool.ts";
import { addPositions, patchify, rope } from "../../lib/ops/tokens.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty } from "./golden.ts";
import { Rng } from "../../lib/rng.ts";
import { leakFree } from "./wave.ts";

Deno.test("cast: bf16 rounds to nearest even, the gradient has the type of the input", async () => {
  await scope(() => {
    const x = Tensor.from(new Float32Array([1, 257, 259, -0.1, Infinity, NaN]), 3);
    const y = cast(x, "bf16");
    assertEquals([...y.read()], [1, 256, 260, -0.10009765625, Infinity, NaN]);
    assertEquals([x.dtype, y.dtype, y.clone().dtype, cast(y, "f32").dtype], ["f32", "bf16", "bf16", "f32"]);
    assert(cast(y, "bf16") === y);
    const { tape, result } = Tape.record([y], () => dot(cast(y, "f32"), Tensor.full(2, 2, 3)));
    assertEquals(tape.backward(result).get(y)!.dtype, "bf16");
    y.write(new Float32Array(6).fill(1.001));
    assertEquals(y.read()[5], 1);
  });
  assertEmpty();
});

Deno.test(
  "a bf16 tensor where an op takes f32, or two types where it takes one, is refused in one sentence",
  leakFree(() =>
    scope(() => {
      const low = Tensor.full(1, 4, 4, undefined, "bf16");
      const high = Tensor.full(1, 4, 4);
      assertThrows(() => add(high, low), UserError, "second term is bf16");
      assertThrows(() => concat(low, high), UserError, "cast it");
      assertThrows(() => dot(low, low), UserError, "first factor is bf16");
    })
  ),
);

/** Largest difference of two tensors as a share of the larger tensor's norm per value. */
function distance(a: Float32Array, b: Float32Array): number {
  const size = Math.sqrt(a.reduce((s, v) => s + v * v, 0));
  return Math.sqrt(a.reduce((s, v, i) => s + (v - b[i]) ** 2, 0)) / size;
}

/** Normal values: waves would cancel in sums, and rounding would look large beside them. */
function noise(length: number, name: string): Float32Array {
  const rng = new Rng("bf16", name);
  return Float32Array.from({ length }, () => rng.normal());
}

const grid = () => new Grid(2, [1, 2, 2], new Uint8Array([1, 1, 0, 1, 1, 0, 1, 1]));
const weights = (rows: number, channels: number) => Tensor.from(noise(rows * channels, "w"), channels);
const bias = (c: number) => Tensor.from(noise(c, "b"), c);
const ops: Record<string, (x: Tensor) => Tensor> = {
  "conv3d 3x3x3": (x) => conv3d(x, weights(9, 27 * 6), bias(9)),
  "conv3d stride 2": (x) => conv3d(x, weights(9, 27 * 6), bias(9), 2),
  "conv3d 16 to 32 channels": (x) => conv3d(conv3d(x, weights(16, 6), null), weights(32, 27 * 16), null),
  "conv3d 1x1x1": (x) => conv3d(x, weights(5, 6), null),
  upconv3d: (x) => upconv3d(x, weights(6, 8 * 4), bias(4)),
  linear: (x) => linear(x, weights(7, 6), bias(7)),
  instanceNorm: (x) => instanceNorm(x, bias(6), bias(6), { residual: scale(x, 0.5), slope: 0.01 }),
  avgPool2,
  maxPool2,
  globalAverage,
  adaptivePool: (x) => adaptivePool(densify(x, bias(6)), [3, 3, 3]),
  "densify and gatherBlocks": (x) => gatherBlocks(densify(x, bias(6)), x.space.grid, x.space.side),
  concat: (x) => concat(x, scale(x, 2)),
  matrixRows: (x) => matrixRows(x, 3, 50),
  add: (x) => add(x, leakyRelu(x, 0.1)),
  silu,
  gelu,
  swiglu: (x) => swiglu(x, scale(x, 0.7)),
  layerNorm: (x) => layerNorm(x, bias(6), bias(6)),
  layerScale: (x) => layerScale(x, leakyRelu(x, 0.3), bias(6), Float32Array.of(1.25, 0)),
  rope: (x) => rope(x, 1),
  attention: (x) => attention(x, scale(x, 0.5), leakyRelu(x, 0.2), 2),
  addPositions: (x) => addPositions(x, weights(8 * 8 * 4, 6)),
  patchify: (x) => patchify(densify(x, bias(6)), { grid: new Grid(2, [2, 4, 4]), side: [1, 1, 1] }, 2),
  gatherRows: (x) => gatherRows(x, plan(Int32Array.of(3, -1, 100), x.rows)),
  softmaxPool: (x) => softmaxPool(x, linear(cast(x, "f32"), weights(1, 6))),
};

for (const [name, op] of Object.entries(ops)) {
  Deno.test(`bf16 ${name}: output, gradients of input and parameters within rounding of f32`, async () => {
    await scope(() => {
      const layout = { grid: grid(), side: [4, 4, 4] as const };
      const values = cast(Tensor.from(noise(6 * 64 * 6, "x"), 6, layout), "bf16").read();
      const [low, high] = (["bf16", "f32"] as const).map((dtype) => {
        const x = Tensor.from(values, 6, layout, dtype);
        const { tape, result } = Tape.record([x], () => {
          const y = op(x);
          const f32 = cast(y, "f32");
          return { y, loss: dot(f32, Tensor.from(noise(y.length, "dy"), y.channels)) };
        });
        const expected = name === "globalAverage" || name === "softmaxPool" ? "f32" : dtype;
        assertEquals(result.y.dtype, expected);
        const gradient = tape.backward(result.loss).get(x)!;
        assertEquals(gradient.dtype, dtype);
        return [result.y.read(), gradient.read()];
      });
      // Half a unit of 8 bits is 2^-9; an op and its gradient round a few times.
      high.forEach((want, i) => {
        const off = distance(want, low[i]);
        assert(off < 4 * 2 ** -9, `${i ? "gradient" : "output"} is off by ${off}`);
      });
    });
    assertEmpty();
  });
}
