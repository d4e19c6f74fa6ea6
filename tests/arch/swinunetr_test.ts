import { assert, assertEquals } from "@std/assert";
import { MERGE, swinUnetr, swinunetr } from "../../lib/arch/swinunetr.ts";
import { scope } from "../../lib/tensor.ts";
import { assertEmpty } from "../ops/golden.ts";
import { documented, Filled, Shapes, summary } from "./filled.ts";

const HEADS = [3, 6, 12, 24];

Deno.test("swinunetr has the published counts, names and shapes", async () => {
  const count = (width: number, inputs: number, outputs: number) => {
    const shapes = new Shapes(0);
    swinunetr("", { width, heads: HEADS, edge: 7 }).build(shapes, inputs, outputs);
    return shapes.size();
  };
  assertEquals([count(24, 1, 1), count(36, 1, 1), count(48, 4, 3)], [15_702_979, 35_072_515, 62_191_941]);
  const shapes = new Shapes(0);
  swinUnetr.build(shapes, 1, 1);
  assertEquals([shapes.size(), shapes.size("swinViT.")], [62_186_659, 8_062_002]);
  // The published file also holds the index of relative positions of every block.
  const indices = HEADS.flatMap((_, i) =>
    [0, 1].map((b): [string, number[]] => [
      `swinViT.layers${i + 1}.0.blocks.${b}.attn.relative_position_index`,
      [343, 343],
    ])
  );
  assertEquals(await shapes.signature(indices), "84856d7663c87662");
});

for (
  const [order, expected] of [
    ["monai15", [-2.6726311, 1.2126973, -5.9341493, -1.6607379, -3.2738881]],
    ["legacy", [-2.67124, 1.2238217, -6.0697401, -2.2830081, -3.3363249]],
  ] as const
) {
  Deno.test(`swinunetr, ${order} merge: the documented forward at 64^3`, async () => {
    await scope(() => {
      using parameters = new Filled(0);
      const arch = swinunetr("", { width: 48, heads: HEADS, edge: 7, merge: MERGE[order] });
      const network = arch.build(parameters, 1, 1);
      const got = summary(network.decode(network.encode(documented([64, 64, 64]))).read());
      got.forEach((v, i) => {
        assert(Math.abs(v - expected[i]) <= 1e-3 * expected[1], `value ${i}: ${v} against ${expected[i]}`);
      });
    });
    assertEmpty();
  });
}
