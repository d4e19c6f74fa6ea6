import { assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { avgPool2, globalAverage } from "../../lib/ops/pool.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

golden("avgPool2", ({ x }) => avgPool2(x));
golden("globalAverage", ({ x }) => globalAverage(x));

Deno.test("pooling refuses odd sides and samples with nothing visible", async () => {
  await scope(() => {
    const grid = new Grid(2, [1, 1, 2], new Uint8Array([1, 1, 0, 0]));
    const x = Tensor.full(1, 2, 4, { grid, side: [1, 1, 1] });
    assertThrows(() => avgPool2(x), Error, "odd");
    assertThrows(() => globalAverage(x), UserError, "patch 1");
  });
  assertEmpty();
});
