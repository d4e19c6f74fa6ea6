import { assertThrows } from "@std/assert";
import { attention } from "../../lib/ops/attention.ts";
import { layerScale } from "../../lib/ops/layer_scale.ts";
import { addPositions, patchify, rope } from "../../lib/ops/tokens.ts";
import { Grid, scope, type Side, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

const KEEP = Float32Array.of(0, 1.25);

golden("rope", ({ x }, { heads }) => rope(x, heads));
golden("attention", ({ q, k, v }, { heads }) => attention(q, k, v, heads));
golden("layerScale", ({ x, branch, gamma }) => layerScale(x, branch, gamma, KEEP));
golden("addPositions", ({ x, table }, _, grid, side) => addPositions(onGrid(x, grid!, side), table));
golden("patchify", ({ x }, _, grid, side) => {
  const size = side.map((s, i) => 2 * s * grid!.dims[i]) as unknown as Side;
  const volumes = Object.assign(x, { layout: { grid: Grid.dense(grid!.samples), side: size } });
  return patchify(volumes, { grid: grid!, side }, 2);
});

function onGrid(x: Tensor, grid: Grid, side: Side): Tensor {
  return Object.assign(x, { layout: { grid, side } });
}

Deno.test("tokens: shapes that do not fit are refused", async () => {
  await scope(() => {
    const layout = { grid: Grid.dense(1), side: [2, 2, 2] as const };
    assertThrows(() => patchify(Tensor.full(1, 8, 1, layout), layout, 2), Error, "do not make up");
    assertThrows(() => rope(Tensor.full(1, 8, 8, layout), 2), Error, "multiple of 6");
    const x = Tensor.full(1, 8, 6, layout);
    assertThrows(() => attention(x, x, x, 4), Error, "4 heads");
    const two = Tensor.full(1, 2, 6, { grid: Grid.dense(2), side: [1, 1, 1] });
    assertThrows(() => attention(x, two, two, 1), Error, "queries of 1 samples, keys of 2");
    const first = { grid: new Grid(2, [1, 1, 2], Uint8Array.of(1, 1, 0, 0)), side: [1, 1, 1] as const };
    const keys = Tensor.full(1, 2, 6, first);
    assertThrows(() => attention(two, keys, keys, 1), Error, "sample 1 has queries and no key");
    assertThrows(() => layerScale(x, x, Tensor.full(1, 1, 6), KEEP), Error, "2 factors for 1 samples");
  });
  assertEmpty();
});
