import { assertEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { back, gatherRows, plan, transpose } from "../../lib/ops/gather.ts";
import { lattice, place } from "../../lib/ops/lattice.ts";
import { windows } from "../../lib/nn/windows.ts";
import { scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

golden("lattice", ({ x }, { offsets, inner }) => lattice(x, [...offsets].map(Number), Boolean(inner)));
golden("place", ({ x }, { offset }) => place(x, offset));
golden("transpose", ({ x }) => transpose(x));

Deno.test("windows: partition and back is the identity for padded, shifted and cut windows", async () => {
  await scope(() => {
    const side = [7, 4, 2] as const;
    const values = Float32Array.from({ length: 2 * 56 * 3 }, (_, i) => i);
    const { rows, tokens, regions } = windows(2, side, 3, 1);
    // 3 x 2 x 1 windows of 3 x 3 x 2, the high ends padded.
    assertEquals([tokens, rows.index.length, regions!.length], [18, 2 * 6 * 18, 6 * 18]);
    const x = Tensor.from(values, 3);
    assertEquals(gatherRows(gatherRows(x, rows), back(rows)).read(), values);
    assertEquals(windows(1, [3, 2, 1], 3, 1).regions, undefined);
  });
  assertEmpty();
});

Deno.test("gather refuses a row that does not exist or is taken twice", async () => {
  await scope(() => {
    assertThrows(() => plan(Int32Array.of(1, 1), 2), Error, "taken twice");
    const x = Tensor.full(1, 2, 1);
    const wrong = { index: Int32Array.of(2), inverse: new Int32Array(2) };
    assertThrows(() => gatherRows(x, wrong), UserError, "row 2 of 2");
  });
  assertEmpty();
});
