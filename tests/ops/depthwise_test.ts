import { assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { depthwise3d, depthwiseUp3d } from "../../lib/ops/depthwise.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

golden("depthwise3d", ({ x, weight, bias }, { stride }) => depthwise3d(x, weight, bias, stride as 1 | 2));
golden("depthwiseUp3d", ({ x, weight, bias }) => depthwiseUp3d(x, weight, bias));

Deno.test("depthwise3d refuses another number of channels, and blocks that the stride does not divide", async () => {
  await scope(() => {
    const x = Tensor.full(1, 6, 2, { grid: new Grid(1, [1, 1, 2], Uint8Array.of(1, 1)), side: [1, 1, 3] });
    const [weight, bias] = [Tensor.full(1, 2, 27), Tensor.full(0, 1, 2)];
    assertThrows(() => depthwise3d(x, Tensor.full(1, 3, 27), bias), Error, "does not fit 2 channels");
    assertThrows(() => depthwise3d(x, weight, bias, 2), UserError, "stride 2 does not divide");
  });
  assertEmpty();
});
