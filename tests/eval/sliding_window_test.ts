import { assertAlmostEquals, assertEquals } from "@std/assert";
import { gaussian, positions, slidingWindow } from "../../lib/eval/sliding_window.ts";
import { Rng } from "../../lib/rng.ts";
import type { Side } from "../../lib/tensor.ts";

Deno.test("sliding window: positions of nnU-Net", () => {
  assertEquals(positions(110, 64), [0, 23, 46]);
  assertEquals(positions(64, 64), [0]);
  assertEquals(positions(65, 64), [0, 1]);
  assertEquals(positions(160, 128), [0, 32]);
  assertEquals(positions(193, 128), [0, 32, 65]);
});

Deno.test("sliding window: weights are a Gaussian, its face is 3.35e-4 of its centre", () => {
  const weights = gaussian(64);
  assertEquals(weights[32], 1);
  assertAlmostEquals(weights[0], 3.3546e-4, 1e-7);
});

const shapes: Side[] = [[11, 20, 9], [5, 16, 33], [8, 8, 8]];

Deno.test("sliding window: a network that gives its input back gives the volume back, mirrored or not, small or not", async () => {
  for (const shape of shapes) {
    const rng = new Rng(1, "window");
    const image = Float32Array.from({ length: shape[0] * shape[1] * shape[2] * 2 }, () => rng.normal());
    for (const mirror of [false, true]) {
      const forward = (window: Float32Array) => Promise.resolve(window.slice());
      const out = (await slidingWindow(image, shape, 2, [8, 16, 8], 2, forward, { mirror }))!;
      out.forEach((v, i) => assertAlmostEquals(v, image[i], 1e-5));
    }
  }
});

Deno.test("sliding window: constant logits stay, a cancelled window ends it", async () => {
  const image = new Float32Array(11 * 20 * 9);
  const forward = () => Promise.resolve(Float32Array.from({ length: 8 * 8 * 8 * 3 }, (_, i) => i % 3 - 1.25));
  const out = (await slidingWindow(image, [11, 20, 9], 1, [8, 8, 8], 3, forward))!;
  out.forEach((v, i) => assertAlmostEquals(v, i % 3 - 1.25, 1e-6));
  assertEquals(
    await slidingWindow(image, [11, 20, 9], 1, [8, 8, 8], 3, () => Promise.resolve(undefined)),
    undefined,
  );
});

Deno.test("sliding window: mirroring takes the mean over flips, each turned back", async () => {
  // Logit = position along x within the window: its mirror image averages to the middle everywhere.
  const forward = () => Promise.resolve(Float32Array.from({ length: 512 }, (_, i) => i % 8));
  const out = (await slidingWindow(new Float32Array(512), [8, 8, 8], 1, [8, 8, 8], 1, forward))!;
  out.forEach((v) => assertAlmostEquals(v, 3.5, 1e-6));
});
