import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { unet } from "../../lib/arch/unet.ts";
import { decode } from "../../lib/data/safetensors.ts";
import { UserError } from "../../lib/errors.ts";
import { amaes } from "../../lib/methods/amaes.ts";
import type { Compat } from "../../lib/methods/compat.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { Rng } from "../../lib/rng.ts";
import { scope, type Side, volume } from "../../lib/tensor.ts";
import { presetOf } from "../../lib/train/presets.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { cosine } from "../../lib/train/schedule.ts";
import { assertEmpty } from "../ops/golden.ts";

const tiny = unet("tiny", 2);
const defaults = { cell: 4, ratio: 0.6, voxels: "all" as const };

/** Loss, output and hidden voxels of one step on noise. */
async function step(
  patch: Side,
  options: { voxels?: "all" | "hidden"; ratio?: number },
  compat: Compat[] = [],
) {
  const rng = new Rng("amaes");
  const images = Float32Array.from({ length: volume(patch) }, () => rng.normal());
  const inputs = images.map((v) => v + 1);
  const out = await scope(() => {
    using parameters = new Parameters(1);
    const network = tiny.build(parameters, 1, 1, { light: amaes.light });
    assert([...parameters.tensors.keys()].some((name) => name.startsWith("rec_head.")));
    const learner = amaes.bind({
      arch: tiny,
      network,
      parameters,
      patch,
      batch: 1,
      options: { ...defaults, ...options },
      compat: new Set(compat),
    });
    const outcome = learner.loss({
      batch: { images, inputs, overlap: new Float32Array(0), ids: ["one"] },
      random: rng,
    });
    const { hidden, whole } = outcome;
    return { loss: outcome.loss.read()[0], output: outcome.output.read(), hidden, whole, images };
  });
  assertEmpty();
  return out;
}

/** Mean of the squared error over voxels where `counts`. */
function mean(output: Float32Array, images: Float32Array, counts: (i: number) => boolean): number {
  let [sum, n] = [0, 0];
  output.forEach((v, i) => {
    if (counts(i)) [sum, n] = [sum + (v - images[i]) ** 2, n + 1];
  });
  return sum / n;
}

Deno.test("amaes: all voxels count, against the target and not the changed input; 13,107 of 32,768 cells stay", async () => {
  const { loss, output, hidden, whole, images } = await step([32, 48, 32], {});
  assertAlmostEquals(loss, mean(output, images, () => true), 1e-5);
  const cells = 8 * 12 * 8;
  assertEquals(hidden.reduce((a, b) => a + b), 64 * (cells - Math.floor(cells * 0.4)));
  assertEquals(whole, true);
  const big = await step([128, 128, 128], {});
  assertEquals(big.hidden.length - big.hidden.reduce((a, b) => a + b), 64 * 13_107);
});

Deno.test("D19: the loss on hidden voxels is their mean, and the mean over all voxels only on request", async () => {
  const { loss, output, hidden, images } = await step([32, 32, 32], { voxels: "hidden" });
  const right = mean(output, images, (i) => hidden[i] === 1);
  assertAlmostEquals(loss, right, 1e-5);
  const published = await step([32, 32, 32], { voxels: "hidden" }, ["amaes-hidden-mean"]);
  const share = hidden.reduce((a, b) => a + b) / hidden.length;
  assertAlmostEquals(published.loss, right * share, 1e-5);
  assert(share > 0.59 && share < 0.62);
});

Deno.test("amaes: AdamW with the rates of PyTorch's LinearLR and CosineAnnealingLR, no clipping", () => {
  const preset = presetOf(amaes, tiny);
  assertEquals([preset.lr, preset.clip, preset.warmup], [1e-4, Infinity, 0.05]);
  const file = new URL("../../fixtures/amaes_intensity.safetensors", import.meta.url);
  const { data } = decode(Deno.readFileSync(file), "amaes_intensity.safetensors").tensors.get("rates")!;
  data.forEach((rate, i) => assertAlmostEquals(cosine(1e-4, i, 200, 10), rate, 1e-10));
});

Deno.test("amaes: a network without a light decoder and a mask that hides everything are refused", () => {
  const config = {
    method: "amaes",
    arch: "tiny",
    patch: [32, 32, 32] as [number, number, number],
    batch: 1,
    steps: 10,
    seed: 0,
    lr: 1e-4,
    options: defaults,
    compat: [],
    data: "",
  };
  assertThrows(
    () => new Trainer({ ...tiny, light: undefined }, amaes, config),
    UserError,
    "light decoder; amaes runs on",
  );
  const all = { ...config, options: { ...defaults, ratio: 1 } };
  assertThrows(() => new Trainer(tiny, amaes, all), UserError, "hides all");
});
