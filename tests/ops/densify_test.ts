import { assertThrows } from "@std/assert";
import { densify, gatherBlocks } from "../../lib/ops/densify.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

golden("densify", ({ x, token = null }, _, grid) => densify(x, token, Grid.dense(grid!.samples)));
golden("gatherBlocks", ({ x }, _, grid, side) => {
  const size = side.map((s, i) => s * grid!.dims[i]) as [number, number, number];
  return gatherBlocks(onVolumes(x, grid!.samples, size), grid!, side);
});

/** The leaf itself, told that its rows are whole volumes. */
function onVolumes(x: Tensor, samples: number, side: [number, number, number]): Tensor {
  return Object.assign(x, { layout: { grid: Grid.dense(samples), side } });
}

Deno.test("densify and gatherBlocks refuse grids that do not fit", async () => {
  await scope(() => {
    const grid = new Grid(2, [1, 1, 2], new Uint8Array([1, 1, 0, 1]));
    const x = Tensor.full(1, 3, 4, { grid, side: [1, 1, 1] });
    assertThrows(() => densify(x, null, Grid.dense(1)), Error, "2 samples");
    const volumes = densify(x, null, Grid.dense(2));
    assertThrows(() => gatherBlocks(volumes, grid, [1, 1, 2]), Error, "do not make up");
  });
  assertEmpty();
});
