import { assertAlmostEquals, assertEquals } from "@std/assert";
import { primus } from "../../lib/arch/primus.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { resizePositions } from "../../lib/nn/positions.ts";
import { transferEncoder } from "../../lib/train/transfer.ts";
import { leakFree, wave } from "../ops/wave.ts";

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

Deno.test(
  "fine-tuning on another patch: the position table is interpolated, the rest of the encoder is the run's",
  leakFree(() => {
    using before = new Parameters(1);
    using after = new Parameters(2);
    const arch = primus("tiny", 24, 1, 2);
    arch.build(before, 1, 1, { patch: [16, 24, 16], hidden: "drop" });
    arch.build(after, 2, 3, { patch: [24, 16, 32] });
    const from = { file: "run", weights: before.values(), patch: [16, 24, 16] as [number, number, number] };
    const loaded = transferEncoder(after, from, arch, [24, 16, 32]);
    assertEquals(loaded.filter((name) => !/^(eva|down_projection)\./.test(name)), []);
    const [table, weight] = ["eva.pos_embed", "eva.blocks.0.mlp.fc2.weight"].map((name) =>
      [before, after].map((p) => p.tensors.get(name)!.read())
    );
    assertEquals(table[1], resizePositions(table[0], [2, 3, 2], [3, 2, 4]));
    assertEquals(weight[1], weight[0]);
  }),
);
