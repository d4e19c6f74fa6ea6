import { assertThrows } from "@std/assert";
import { linear } from "../../lib/ops/linear.ts";
import { scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

golden("linear", ({ x, weight, bias = null }) => linear(x, weight, bias));

Deno.test("linear refuses a weight that does not fit", async () => {
  await scope(() => {
    assertThrows(() => linear(Tensor.full(1, 2, 3), Tensor.full(1, 4, 5), null), Error, "takes 5");
  });
  assertEmpty();
});
