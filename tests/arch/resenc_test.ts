import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { resencL, resencS } from "../../lib/arch/resenc.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { unit } from "../../lib/nn/unit.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, memory, scope, Tensor, wait } from "../../lib/tensor.ts";
import { Shapes } from "./filled.ts";

Deno.test("resenc-l has the published parameter counts and tensors", () => {
  const shapes = new Shapes(0);
  resencL.build(shapes, 1, 1);
  assertEquals(shapes.size(), 102_348_965);
  assertEquals(shapes.size("encoder."), 90_296_576);
  assertEquals(shapes.shapes.size, 264);
  assertEquals(shapes.shapes.get("encoder.stages.3.blocks.0.skip.1.conv.weight"), [256, 128, 1, 1, 1]);
  assertEquals(shapes.shapes.has("encoder.stages.5.blocks.0.skip.1.conv.weight"), false);
  assertEquals(shapes.shapes.get("decoder.transpconvs.0.weight"), [320, 320, 2, 2, 2]);
});

Deno.test("resenc-l with three outputs has 102,350,575 parameters", () => {
  const shapes = new Shapes(0);
  resencL.build(shapes, 1, 3);
  assertEquals(shapes.size(), 102_350_575);
});

Deno.test("D04: hidden voxels never reach the sparse encoder, and nothing of them is stored", async () => {
  await scope(async () => {
    const parameters = new Parameters(1);
    const network = resencS.build(parameters, 1, 1);
    const rng = new Rng("voxels");
    const visible = new Uint8Array(8).map((_, i) => Number(i === 0 || i === 6));
    const grid = new Grid(1, [2, 2, 2], visible);
    const side = [16, 16, 16] as const;
    const blocks = Float32Array.from({ length: 2 * 16 ** 3 }, () => rng.normal());
    const pyramid = network.encode(Tensor.from(blocks, 1, { grid, side }));
    await wait();
    // Two visible blocks of 8 are all that a level holds; a block one voxel wide is the last sparse level.
    assertEquals(pyramid.map((t) => t.rows), [2 * 16 ** 3, 2 * 8 ** 3, 2 * 4 ** 3, 2 * 2 ** 3, 2]);
    assertEquals(pyramid.map((t) => t.channels), [16, 32, 64, 128, 192]);
  });
  await wait();
  assertEquals(memory().tensors, 0);
  assertEquals(memory().bytes, 0);
});

Deno.test("resenc: the initial values of nnU-Net, and PyTorch's defaults", async () => {
  using stemOnly = new Parameters(3);
  using he = new Parameters(3);
  using torch = new Parameters(3);
  const network = resencS.build(he, 1, 3, { init: "nnunet" });
  resencS.build(torch, 1, 3);
  const [ours, theirs] = [he.values(), torch.values()];
  assertEquals([...ours.keys()], [...theirs.keys()]);
  const spread = (data: Float32Array) => Math.sqrt(data.reduce((sum, v) => sum + v * v, 0) / data.length);
  for (const [name, { shape, data }] of ours) {
    const zero = name.endsWith(".bias") || /blocks\.\d+\.conv2\.norm/.test(name);
    if (zero) assert(data.every((v) => v === 0), name);
    else if (name.endsWith("norm.weight")) assert(data.every((v) => v === 1), name);
    else {
      // fan_in of PyTorch: the second axis (of a transposed convolution the outputs) times the kernel.
      const fan = shape[1] * shape[2] * shape[3] * shape[4];
      const [a, b] = [spread(data), spread(theirs.get(name)!.data)];
      const error = 4 / Math.sqrt(data.length); // four standard errors and more
      assertAlmostEquals(a / Math.sqrt(2 / (1.0001 * fan)), 1, error, name);
      assertAlmostEquals(b / Math.sqrt(1 / (3 * fan)), 1, error, name);
    }
  }
  // Every block starts as LeakyReLU of its skip: so does the whole first stage, LeakyReLU(LeakyReLU(stem)).
  await scope(async () => {
    const rng = new Rng("voxels");
    const x = Float32Array.from({ length: 32 ** 3 }, () => rng.normal());
    const layout = { grid: Grid.dense(1), side: [32, 32, 32] as const };
    const image = Tensor.from(x, 1, layout);
    const [first] = network.encode(image);
    const stem = unit(stemOnly, "encoder.stem.convs.0", 1, 16, { he: true })(image);
    await wait();
    const wanted = stem.read();
    first.read().forEach((v, i) => assertAlmostEquals(v, wanted[i] < 0 ? 0.01 * wanted[i] : wanted[i], 1e-6));
  });
});
