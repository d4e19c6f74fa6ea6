import { assertAlmostEquals, assertEquals } from "@std/assert";
import { resizePositions } from "../../lib/nn/positions.ts";
import { wave } from "../ops/wave.ts";

Deno.test("resizePositions: as torch 2.15.0 interpolates", () => {
  const table = resizePositions(wave(24, 0.7, 0), [2, 3, 2], [3, 2, 4]);
  assertEquals(table.length, 48);
  const want = [0.083747, 0.395467, 0.400212, -0.223566, 0.240128, 0.054229, 0.188176, -0.119161];
  [0, 1, 5, 10, 17, 24, 31, 47].forEach((at, i) => assertAlmostEquals(table[at], want[i], 1e-6));
});

Deno.test("resizePositions: the same grid changes nothing", () => {
  const table = wave(2 * 3 * 4 * 5, 0.7, 0);
  assertEquals(resizePositions(table, [2, 3, 4], [2, 3, 4]), table);
});
