import { assertAlmostEquals, assertEquals } from "@std/assert";
import { dice, overlaps } from "../../lib/eval/dice.ts";
import { elementAreas, nsd, squaredDistances } from "../../lib/eval/nsd.ts";

type Triple = [number, number, number];
interface Case {
  shape: Triple;
  spacing: Triple;
  tolerances: number[];
  truth: string;
  prediction: string;
  labels: { label: number; dsc: number; nsd: number[] }[];
  points: number[];
  distance: number[];
}
const expected: { cases: Case[]; areas: { spacing: Triple; areas: number[] }[] } = JSON.parse(
  Deno.readTextFileSync(new URL("../../fixtures/nsd/expected.json", import.meta.url)),
);

function score(
  truth: Uint16Array,
  prediction: Uint16Array,
  shape: Triple,
  spacing: Triple,
  tolerance: number,
) {
  const [overlap] = overlaps(truth, prediction, shape, [1]);
  return nsd(truth, prediction, shape, 1, overlap, spacing, tolerance);
}

Deno.test("NSD: surface element areas equal those of the surface-distance package in all 256 codes", () => {
  const reversed = (code: number) =>
    parseInt(code.toString(2).padStart(8, "0").split("").reverse().join(""), 2);
  for (const { spacing, areas } of expected.areas) {
    const ours = elementAreas(spacing);
    areas.forEach((area, code) => assertAlmostEquals(ours[reversed(code)], area, 2e-9, `code ${code}`));
  }
});

Deno.test("NSD: the distance transform equals that of SciPy, spacing included", () => {
  for (const { shape, spacing, points, distance } of expected.cases) {
    const codes = new Uint8Array(distance.length);
    points.forEach((i) => codes[i] = 1);
    squaredDistances(codes, shape, spacing).forEach((d, i) =>
      assertAlmostEquals(Math.sqrt(d), distance[i], 1e-6)
    );
  }
});

Deno.test("DSC and NSD: label maps with three spacings, as the surface-distance package scores them", () => {
  for (const { shape, spacing, tolerances, labels, ...maps } of expected.cases) {
    const truth = Uint16Array.from(maps.truth, Number);
    const prediction = Uint16Array.from(maps.prediction, Number);
    const found = overlaps(truth, prediction, shape, labels.map((l) => l.label));
    labels.forEach((want, i) => {
      assertAlmostEquals(dice(found[i])!, want.dsc, 1e-12);
      tolerances.forEach((tolerance, k) => {
        const value = nsd(truth, prediction, shape, want.label, found[i], spacing, tolerance);
        assertAlmostEquals(value!, want.nsd[k], 1e-9, `label ${want.label} tolerance ${tolerance}`);
      });
    });
  }
});

Deno.test("NSD: a shifted ball and single voxels, values of the reference implementation", () => {
  const n = 40;
  const ball = (shift: Triple) =>
    Uint16Array.from({ length: n ** 3 }, (_, i) => {
      const at = [Math.floor(i / n / n), Math.floor(i / n) % n, i % n];
      return at.reduce((s, v, k) => s + (v - 20 - shift[k]) ** 2, 0) <= 100 ? 1 : 0;
    });
  const still = ball([0, 0, 0]);
  const vectors: [Triple, Triple, number][] = [
    [[1, 0, 0], [1, 1, 1], 1],
    [[2, 0, 0], [1, 1, 1], 0.7892],
    [[1, 0, 0], [2, 1, 1], 0.9439],
    [[0, 0, 1], [2, 1, 1], 1],
  ];
  for (const [shift, spacing, want] of vectors) {
    assertAlmostEquals(score(still, ball(shift), [n, n, n], spacing, 1)!, want, 5e-5);
  }
  const voxel = (x: number) => Uint16Array.from({ length: 6 }, (_, i) => i === x ? 1 : 0);
  assertAlmostEquals(score(voxel(1), voxel(2), [1, 1, 6], [1, 1, 1], 1)!, 1, 1e-12);
  assertAlmostEquals(score(voxel(1), voxel(3), [1, 1, 6], [1, 1, 1], 1)!, 0.5, 1e-12);
});

Deno.test("DSC and NSD: null without the label in either map, 0 in one only, 1 for equal maps", () => {
  const empty = new Uint16Array(27);
  const full = new Uint16Array(27).fill(1);
  const shape: Triple = [3, 3, 3];
  const both = (
    a: Uint16Array,
    b: Uint16Array,
  ) => [dice(overlaps(a, b, shape, [1])[0]), score(a, b, shape, shape, 1)];
  assertEquals(both(empty, empty), [null, null]);
  assertEquals(both(empty, full), [0, 0]);
  assertEquals(both(full, empty), [0, 0]);
  assertEquals(both(full, full), [1, 1]);
});
