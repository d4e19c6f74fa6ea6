import { assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { concat, matrixRows } from "../../lib/ops/concat.ts";
import { scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

golden("concat", ({ a, b }) => concat(a, b));
golden("matrixRows", ({ x }, { start, count }) => matrixRows(x, start, count));

Deno.test("matrixRows refuses rows that do not exist", async () => {
  await scope(() => {
    const x = Tensor.full(1, 3, 2);
    assertThrows(() => matrixRows(x, 2, 2), UserError, "2 to 4 asked of 3");
  });
  assertEmpty();
});
