import { assertEquals } from "@std/assert";
import { reconstructionLoss } from "../../lib/ops/reconstruction.ts";
import { scope, Tensor } from "../../lib/tensor.ts";
import { assertEmpty, golden } from "./golden.ts";

golden("reconstructionLoss", ({ y, target, weight = null }, { kind }) => {
  return reconstructionLoss(y, target, weight, kind as "mse" | "l1" | "huber");
});

Deno.test("reconstructionLoss: Huber of 0.5, 1, 3 and a batch where nothing counts", async () => {
  await scope(() => {
    const zero = Tensor.full(0, 1, 1);
    const huber = (r: number, w: number) =>
      reconstructionLoss(Tensor.full(r, 1, 1), zero, Tensor.full(w, 1, 1), "huber").read()[0];
    assertEquals([0.5, 1, 3].map((r) => huber(r, 1)), [0.125, 0.5, 2.5]);
    assertEquals(huber(3, 0), 0);
  });
  assertEmpty();
});
