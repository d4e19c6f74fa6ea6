import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import type { Source } from "../../lib/data/loader.ts";
import type { Network } from "../../lib/nn/network.ts";
import { avgPool2 } from "../../lib/ops/pool.ts";
import { colours, featurePictures } from "../../lib/report/features.ts";
import { principal, project } from "../../lib/report/principal.ts";
import { memory } from "../../lib/tensor.ts";

Deno.test("principal components: mean, variances, directions and coordinates as NumPy has them", async () => {
  const golden = JSON.parse(
    await Deno.readTextFile(new URL("../../fixtures/principal.json", import.meta.url)),
  );
  const rows = Float32Array.from(golden.rows);
  const found = principal(rows, 7);
  const near = (a: ArrayLike<number>, b: number[], tolerance: number) =>
    b.forEach((value, i) => assertAlmostEquals(a[i], value, tolerance));
  near(found.mean, golden.mean, 1e-12);
  near(found.variance, golden.variance, 1e-12);
  assertAlmostEquals(found.total, golden.total, 1e-12);
  found.components.forEach((v, i) => near(v, golden.components[i], 1e-7));
  project(rows, found).forEach((along, i) => near(along, golden.first[i], 1e-6));
});

Deno.test("principal components: constant, one-channel and repeated features", () => {
  const flat = principal(new Float32Array(40).fill(2), 4);
  assert(flat.total < 1e-24 && flat.variance.every((v) => v < 1e-24));
  assert(
    project(new Float32Array(8).fill(2), flat).every((along) => along.every((v) => Math.abs(v) < 1e-12)),
  );
  const one = principal(Float32Array.of(1, 2, 3, 4), 1);
  assertEquals([one.components.length, one.variance], [1, [1.25]]);
  const twin = principal(Float32Array.of(1, 1, 2, 2, 4, 4), 2);
  assertAlmostEquals(twin.components[0][0], Math.SQRT1_2, 1e-12);
  assertAlmostEquals(twin.variance[1], 0, 1e-12);
});

Deno.test("feature colours: fitted on both views, so that equal features have equal colours", () => {
  const feature = (i: number) => [Math.sin(i), Math.cos(1.3 * i), Math.sin(2.1 * i), 0.1 * Math.sin(5 * i)];
  const level = (from: number) => {
    const values = Float32Array.from(Array.from({ length: 64 }, (_, i) => feature(from + i)).flat());
    return { side: [4, 4, 4] as const, channels: 4, values };
  };
  const { views: [a, b], share } = colours([level(0), level(16)]);
  assert(share > 0.97 && share < 1, `three of four channels matter: ${share}`);
  assertEquals([a.rgb.length, a.rgb[0].length, b.side], [3, 64, [4, 4, 4]]);
  for (const i of [0, 1, 2]) {
    assertEquals(a.rgb[i].subarray(16), b.rgb[i].subarray(0, 48));
    assert(Math.min(...a.rgb[i]) < 30 && Math.max(...a.rgb[i]) > 225, "the whole range is used");
  }
});

Deno.test("feature pictures: input and levels of both views, one row each; memory comes back", async () => {
  const network: Network = {
    features: [1, 1],
    encode: (x) => [x, avgPool2(x)],
    decode: ([x]) => x,
  };
  const shape: [number, number, number] = [20, 24, 18];
  const store: Source = {
    volumes: [{ id: "v", shape }],
    get: () => ({ id: "v", shape }),
    read: () => Promise.resolve(Float32Array.from({ length: 20 * 24 * 18 }, (_, i) => Math.sin(i / 40))),
  };
  const before = memory();
  const pictures = await featurePictures(network, store, [8, 12, 8], 3, 2);
  assertEquals([memory().tensors, memory().grids], [before.tensors, before.grids]);
  assertEquals(pictures.length, 2);
  for (const { name, png } of pictures) {
    assertStringIncludes(name, "v: input");
    assertStringIncludes(name, "4x6x4");
    const view = new DataView(png.buffer);
    const scale = 8;
    assertEquals(view.getUint32(16), 2 * (8 + 8 + 12) * scale + 6 * 4 + 3 * 4, "three planes of two views");
    assertEquals(view.getUint32(20), 3 * (12 * scale + 4) + 4, "input and two levels");
  }
});
