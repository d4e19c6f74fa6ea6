/** Primus: the published sizes and names, and what is left out where nobody reads it. */
import { assert, assertEquals } from "@std/assert";
import { decoderWidths, primus, primusB, primusL, primusM, primusS } from "../../lib/arch/primus.ts";
import { Tape } from "../../lib/autograd.ts";
import { hiddenWeights } from "../../lib/methods/masking.ts";
import type { BuildOptions } from "../../lib/nn/network.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { reconstructionLoss } from "../../lib/ops/reconstruction.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, scope, Tensor, wait } from "../../lib/tensor.ts";
import { close, wave } from "../ops/wave.ts";
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

Deno.test("primus: a loss on some tokens and its gradients do not need the others decoded", async () => {
  await scope(async () => {
    const run = async (part: boolean) => {
      const parameters = new Parameters(7);
      const network = primus("p", 48, 2, 2).build(parameters, 1, 1, { patch: [16, 16, 24], hidden: "drop" });
      const visible = Uint8Array.from({ length: 24 }, (_, i) => Number(i % 12 === 3 || i % 12 === 7));
      const hidden = visible.map((v) => 1 - v);
      const x = Tensor.from(wave(2 * 16 * 16 * 24, 0.37, 0.2), 1, {
        grid: Grid.dense(2),
        side: [16, 16, 24],
      });
      const weights = hiddenWeights({ dims: [2, 2, 3], visible }, x.space);
      const { tape, result } = Tape.record(parameters.tensors.values(), () => {
        const random = new Rng(3); // DropPath
        const pyramid = network.encode(x, visible, random);
        const output = network.decode(pyramid, random, undefined, part ? hidden : undefined);
        return reconstructionLoss(output, x, weights, "mse");
      });
      const gradients = tape.backward(result);
      await wait();
      const named = [...parameters.tensors].map(([name, t]) => [name, gradients.get(t)!.read()] as const);
      return { loss: result.read()[0], gradients: new Map(named) };
    };
    const [all, part] = [await run(false), await run(true)];
    close([part.loss], [all.loss], 1e-6);
    assert(all.gradients.get("decoder.blocks.1.mlp.fc2.weight")!.some((v) => v !== 0));
    for (const [name, want] of all.gradients) close(part.gradients.get(name)!, [...want], 1e-5);
  });
});
