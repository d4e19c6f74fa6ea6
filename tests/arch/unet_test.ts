import { assert, assertEquals, assertThrows } from "@std/assert";
import { unetB, unetXl } from "../../lib/arch/unet.ts";
import { record, Tape } from "../../lib/autograd.ts";
import { UsageError, UserError } from "../../lib/errors.ts";
import { mae } from "../../lib/methods/mae.ts";
import { fillOptions } from "../../lib/methods/options.ts";
import { checkPatch } from "../../lib/nn/network.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { maxPool2 } from "../../lib/ops/maxpool.ts";
import { assertEmpty } from "../ops/golden.ts";
import { fixture } from "../parity/sampled.ts";
import { documented, Filled, Shapes, summary } from "./filled.ts";

const { tensors } = fixture("unet");

Deno.test("unet-b and unet-xl have the published counts, names and shapes", async () => {
  for (
    const [arch, light, keys, size, encoder, signature] of [
      [unetB, true, 66, 17_879_617, 14_134_944, "8e88e6a070babe08"],
      [unetB, false, 82, 22_581_217, 14_134_944, "70ee8c00d17803c5"],
      [unetXl, true, 66, 71_500_929, 56_526_144, "0d1f15dd7ce5d23b"],
      [unetXl, false, 82, 90_304_449, 56_526_144, "f74474a9d8687a2c"],
    ] as const
  ) {
    const shapes = new Shapes(0);
    arch.build(shapes, 1, 1, { light });
    assertEquals([shapes.shapes.size, shapes.size(), shapes.size("encoder.")], [keys, size, encoder]);
    assertEquals(await shapes.signature(), signature);
  }
});

for (
  const [light, expected] of [
    [true, [-0.72294198, 0.35239654, -0.63711227, -0.91149082, -0.66909136]],
    [false, [-3.5020099, 1.7044558, -1.6176542, -3.3739004, -1.5051691]],
  ] as const
) {
  Deno.test(`unet-b ${light ? "light" : "standard"}: the documented forward at 32^3`, async () => {
    await scope(() => {
      using parameters = new Filled(0);
      const network = unetB.build(parameters, 1, 1, { light });
      const values = summary(network.decode(network.encode(documented([32, 32, 32]))).read());
      values.forEach((v, i) => {
        assert(Math.abs(v - expected[i]) <= 1e-3 * values[1], `value ${i}: ${v} against ${expected[i]}`);
      });
    });
    assertEmpty();
  });
}

Deno.test("maxPool2: values and gradient are those of PyTorch, equal values included", async () => {
  await scope(() => {
    const { data, shape: [n, z, y, x, c] } = tensors.get("pool.x")!;
    const input = Tensor.from(data, c, { grid: Grid.dense(n), side: [z, y, x] });
    const { tape, result } = Tape.record([input], () => {
      const out = maxPool2(input);
      const dy = tensors.get("pool.dy")!.data;
      return { out, loss: record(Tensor.full(0, 1, 1), [out], () => [Tensor.from(dy, c, out.layout)]) };
    });
    assertEquals(result.out.read(), tensors.get("pool.y")!.data);
    assertEquals(tape.backward(result.loss).get(input)!.read(), tensors.get("pool.dx")!.data);
    const odd = Tensor.full(0, 3, 1, { grid: Grid.dense(1), side: [1, 1, 3] });
    assertThrows(() => maxPool2(odd), Error, "odd");
  });
  assertEmpty();
});

Deno.test("unet: a patch that the strides do not divide is refused with the nearest that they do", () => {
  const config = {
    method: "mae",
    arch: "unet-b",
    patch: [32, 40, 32] as [number, number, number],
    batch: 1,
    steps: 1,
    seed: 0,
    lr: 0.1,
    options: fillOptions("mae", mae.options, "cnn", {}),
    data: "",
  };
  assertThrows(() => new Trainer(unetB, mae, config), UserError, "32x32x32 or 32x48x32");
  checkPatch(unetB, [32, 32, 16]);
  // One voxel is left at the deepest level, which is normalised.
  assertThrows(() => checkPatch(unetB, [16, 16, 16]), UsageError, "try 32x32x32");
  assertThrows(() => checkPatch(unetB, [17, 17, 17]), UsageError, "try 32x32x32");
});
