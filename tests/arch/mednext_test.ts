import { assert, assertEquals } from "@std/assert";
import { mednextL, mednextLNative, mednextM, mednextMNative } from "../../lib/arch/mednext.ts";
import { scope } from "../../lib/tensor.ts";
import { assertEmpty } from "../ops/golden.ts";
import { documented, Filled, Shapes, summary } from "./filled.ts";

Deno.test("mednext-m and mednext-l have the published counts, names and shapes", async () => {
  for (
    const [arch, light, keys, size, encoder, signature] of [
      [mednextMNative, false, 356, 17_548_929, 12_491_712, "1078ed8f1ad4c003"],
      [mednextLNative, false, 516, 61_779_233, 46_752_320, "a4ce3cb67e2ed68c"],
      [mednextM, true, 220, 16_236_385, 12_491_712, "387bc0df982c7799"],
      [mednextM, false, 236, 20_937_985, 12_491_712, "dd40ff101b597ff9"],
      [mednextL, true, 316, 50_496_993, 46_752_320, "0058459b1f0d3cd4"],
      [mednextL, false, 332, 55_198_593, 46_752_320, "73858bbe69b3a18e"],
    ] as const
  ) {
    const shapes = new Shapes(0);
    arch.build(shapes, 1, 1, { light });
    assertEquals([shapes.shapes.size, shapes.size(), shapes.size("encoder.")], [keys, size, encoder]);
    assertEquals(await shapes.signature(), signature);
  }
});

for (
  const [arch, light, expected] of [
    [mednextMNative, false, [32.242425, 785.94596, 40.330272, -36.899199, 60339.738]],
    [mednextM, true, [-0.71683962, 0.39095797, -0.5454769, -0.6620928, -0.69380345]],
    [mednextM, false, [-3.6106996, 1.3984041, -2.9692952, -3.1240612, -2.7310267]],
    [mednextL, true, [-0.71471647, 0.36949865, -0.55536506, -0.63386266, -0.48401231]],
    [mednextL, false, [-3.4322444, 1.7924644, -4.3013251, -2.3105417, -2.0268025]],
  ] as const
) {
  Deno.test(`${arch.name} ${light ? "light" : "standard"}: the documented forward at 32^3`, async () => {
    await scope(() => {
      using parameters = new Filled(0);
      const network = arch.build(parameters, 1, 1, { light });
      const got = summary(network.decode(network.encode(documented([32, 32, 32]))).read());
      got.forEach((v, i) => {
        assert(Math.abs(v - expected[i]) <= 1e-3 * expected[1], `value ${i}: ${v} against ${expected[i]}`);
      });
    });
    assertEmpty();
  });
}
