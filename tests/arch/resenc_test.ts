import { assertEquals } from "@std/assert";
import { resencL, resencS } from "../../lib/arch/resenc.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
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
