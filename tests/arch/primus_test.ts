/** Primus: the published sizes and names. */
import { assertEquals } from "@std/assert";
import { decoderWidths, primusB, primusL, primusM, primusS } from "../../lib/arch/primus.ts";
import type { BuildOptions } from "../../lib/nn/network.ts";
import { Shapes } from "./filled.ts";

const PATCH = [160, 160, 160] as const;

Deno.test("primus: parameters of the four sizes at 160^3", () => {
  const count = (arch: typeof primusS, outputs = 1, options: BuildOptions = {}, prefix = "") => {
    const shapes = new Shapes(0);
    arch.build(shapes, 1, outputs, { patch: PATCH, ...options });
    return shapes.size(prefix);
  };
  assertEquals([primusS, primusB, primusM, primusL].map((arch) => count(arch)), [
    26_268_285,
    97_958_065,
    151_786_529,
    331_823_761,
  ]);
  assertEquals(count(primusM, 3), 152_203_131);
  assertEquals(count(primusM, 1, {}, "eva."), 150_554_304);
  assertEquals(count(primusM, 1, {}, "down_projection."), 443_232);
  assertEquals(count(primusM, 1, { hidden: "drop" }), 176_656_193);
  assertEquals(count(primusM, 1, { hidden: "drop" }, "decoder."), 24_868_800);
  assertEquals(count(primusM, 1, { featureDecoder: true }, "feature_decoder."), 24_868_800);
  assertEquals(count(primusM, 1, { hidden: "swap" }), 151_786_529 + 864);
});

Deno.test("primus: names and shapes of the MAE class are the published ones", async () => {
  const shapes = new Shapes(0);
  primusM.build(shapes, 1, 1, { patch: PATCH, hidden: "drop" });
  assertEquals(shapes.shapes.size, 433);
  assertEquals(await shapes.signature(), "3d816c1d322e73bf");
});

Deno.test("primus: widths of the patch decoder for 1 to 10 classes", () => {
  const widths = Array.from({ length: 10 }, (_, k) => decoderWidths(864, k + 1));
  assertEquals(widths.map(([first]) => first), [112, 144, 168, 184, 192, 208, 216, 232, 240, 248]);
  assertEquals(widths.map(([, second]) => second), [16, 24, 32, 40, 48, 48, 56, 64, 64, 72]);
});
