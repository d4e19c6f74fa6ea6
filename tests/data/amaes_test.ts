import { assert, assertEquals } from "@std/assert";
import { changed, drawBent, drawReversal } from "../../lib/data/amaes.ts";
import { applyIntensity, type Change } from "../../lib/data/augment.ts";
import { decode } from "../../lib/data/safetensors.ts";
import { sampleView } from "../../lib/data/sample.ts";
import type { Triple, View } from "../../lib/data/views.ts";

const file = new URL("../../fixtures/amaes_intensity.safetensors", import.meta.url);
const { tensors } = decode(Deno.readFileSync(file), "amaes_intensity.safetensors");
const { data: image, shape } = tensors.get("x")!;

function near(got: Float32Array, expected: Float32Array, tolerance: number, what: string): void {
  const worst = got.reduce((m, v, i) => Math.max(m, Math.abs(v - expected[i])), 0);
  assert(worst <= tolerance && got.length === expected.length, `${what}: ${worst}`);
}

for (const [name, { data: expected }] of tensors) {
  const [, kind, parameters, seed] = name.match(/^(\w+) ([\d.,]+) seed (\d+)$/) ?? [];
  if (!kind) continue;
  Deno.test(`amaes intensity: ${kind} ${parameters} is that of NumPy and SciPy`, async () => {
    const [a, ...more] = parameters.split(",").map(Number);
    const values = image.slice();
    await applyIntensity(
      values,
      shape as Triple,
      [{ kind: kind as Change["kind"], a, more, seed: Number(seed) }],
      true,
    );
    near(values, expected, 1e-5, name);
  });
}

Deno.test("amaes: an elastic view is that of SciPy to 1 % of the displacement, the least value outside", async () => {
  const { data, shape: whole } = tensors.get("elastic.volume")!;
  const flat = tensors.get("elastic.affine")!.data;
  const { data: expected, shape: patch } = tensors.get("elastic.y")!;
  const view: View = {
    box: [0, 0, 0, patch[0], patch[1], patch[2]],
    affine: [0, 1, 2].map((r) => [...flat.subarray(r * 4, r * 4 + 4)]),
  };
  const elastic = { sigma: 20, alpha: 5000, seed: 12 };
  const got = await sampleView(data, whole as Triple, view, undefined, 3, { least: true, elastic });
  assert(tensors.get("elastic.largest")!.data[0] > 1, "the deformation is of more than a voxel");
  // Voxels at the border of the volume may fall on the other side of it.
  const apart = got.filter((v, i) => Math.abs(v - expected[i]) > 1e-2).length;
  assert(apart <= 0.005 * got.length, `${apart} of ${got.length} voxels are apart`);
  const straight = await sampleView(data, whole as Triple, view, undefined, 3, { least: true });
  assert(straight.some((v, i) => Math.abs(v - expected[i]) > 0.1), "it bends");
});

Deno.test("amaes: views and changes are functions of their keys with the chances of the paper", () => {
  const volumes = [{ id: "v", shape: [40, 50, 60] as Triple }];
  const counts: Record<string, number> = {};
  const n = 4000;
  for (let index = 0; index < n; index++) {
    const bent = drawBent(3, index, volumes, [32, 32, 32]);
    assertEquals(drawBent(3, index, volumes, [32, 32, 32]), bent);
    if (bent.elastic) counts.elastic = (counts.elastic ?? 0) + 1;
    if (bent.view.affine.some((row, r) => row[r] !== 1)) counts.turn = (counts.turn ?? 0) + 1;
    const changes = drawReversal(3, index, [128, 64, 128]);
    assertEquals(drawReversal(3, index, [128, 64, 128]), changes);
    for (const { kind, a, more } of changes) {
      counts[kind] = (counts[kind] ?? 0) + 1;
      if (kind === "ringing") assert(more![0] === 1 ? a >= 48 && a <= 64 : a >= 96 && a <= 128);
      if (kind === "ghosting") assert(more![1] >= 2 && more![1] <= 10);
    }
  }
  const chances = {
    elastic: 0.33,
    gaussian: 0.2,
    blur: 0.1,
    multiplicative: 0.2,
    ghosting: 0.2,
    ringing: 0.2,
  };
  // A view is turned or scaled: 1 - (1 - 0.2 (1 - 0.34^3)) 0.8.
  const more = { lowResolution: 0.1, biasField: 0.33, power: 0.19, invertedPower: 0.01, turn: 0.3537 };
  for (const [kind, p] of Object.entries({ ...chances, ...more })) {
    assert(Math.abs(counts[kind] / n - p) < 0.025, `${kind} ${counts[kind]}`);
  }
  const plain = drawBent(3, 0, volumes, [32, 32, 32], false);
  assertEquals([plain.elastic, plain.view.affine[0].slice(0, 3)], [undefined, [1, 0, 0]]);
});

Deno.test("amaes: changes keep the range of images of any recipe and leave the original alone", async () => {
  const changes: Change[] = [{ kind: "biasField", a: 0, more: [0, 0], seed: 0 }];
  const scored = image.map((v) => 5 * v - 2);
  const before = scored.slice();
  const out = await changed(scored, shape as Triple, changes);
  assertEquals(scored, before);
  const expected = image.slice();
  await applyIntensity(expected, shape as Triple, changes, true);
  near(out, expected.map((v) => 5 * v - 2), 1e-5, "z-scored");
});
