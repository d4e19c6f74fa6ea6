/** Ranks, tests and distributions against SciPy (fixtures/make_rank.py). */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  chi2Upper,
  fUpper,
  normalCdf,
  studentizedRangeQuantile,
  studentizedRangeUpper,
} from "../../lib/eval/distributions.ts";
import { kendall, rank, show, type Ties } from "../../lib/eval/ranks.ts";
import { cliques, friedman, holm, nemenyi, wilcoxon } from "../../lib/eval/tests.ts";

const judge = JSON.parse(await Deno.readTextFile(new URL("../../fixtures/rank.json", import.meta.url)));
const near = (a: number | null, b: number, tolerance = 1e-9) => assertAlmostEquals(a!, b, tolerance);
const each = (a: ArrayLike<number>, b: number[], tolerance = 1e-6) => {
  assertEquals(a.length, b.length);
  b.forEach((v, i) => near(a[i], v, tolerance));
};

Deno.test("distributions agree with SciPy", () => {
  for (const [x, df, p] of judge.chi2_upper) near(chi2Upper(x, df), p, 1e-12);
  for (const [x, a, b, p] of judge.f_upper) near(fUpper(x, a, b), p, 1e-12);
  for (const [z, p] of judge.normal_cdf) near(normalCdf(z), p, 1e-14);
  for (const [q, k, p] of judge.studentized_range_upper) near(studentizedRangeUpper(q, k), p, 1e-8);
});

Deno.test("studentized range quantiles over sqrt 2 are the table of Nemenyi", () => {
  const q05 = [1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164];
  q05.forEach((q, i) => near(studentizedRangeQuantile(0.05, i + 2) / Math.SQRT2, q, 5e-4));
  near(studentizedRangeQuantile(0.1, 20) / Math.SQRT2, 3.319, 5e-4);
});

Deno.test("ranks under all tie rules agree with SciPy", () => {
  for (const [values, expected] of judge.rank) {
    for (const ties of ["average", "min", "max", "dense"] as Ties[]) {
      each(rank(values, ties), expected[ties], 0);
    }
  }
  assertEquals([...rank([0.8, 0.75, 0.8, 0.6])], [1.5, 3, 1.5, 4]);
  assertEquals([...rank([0.1 + 0.2, 0.3])], [1.5, 1.5]);
  assertEquals([...rank([0.5, NaN, 0.7, NaN], "average", true)], [2, 3.5, 1, 3.5]);
});

Deno.test("numbers are shown with halves away from zero", () => {
  assertEquals([show(41 / 40), show(9 / 8), show(-1.005), show(null)], ["1.03", "1.13", "-1.01", "–"]);
});

Deno.test("Kendall's tau-b agrees with SciPy", () => {
  for (const [a, b, tau] of judge.kendall) near(kendall(a, b), tau, 1e-12);
  near(kendall([1, 2, 3, 4, 5], [2, 1, 3, 4.5, 4.5]), 0.737865, 1e-6);
  assertEquals(kendall([1, 1], [1, 2]), null);
});

Deno.test("Wilcoxon exact equals the enumeration of all sign patterns", () => {
  for (const { d, W, greater, less, two } of judge.wilcoxon) {
    const test = wilcoxon(d);
    assertEquals([test.W, test.exact], [W, true]);
    near(test.p_greater, greater);
    near(test.p_less, less);
    near(test.p, two);
  }
});

Deno.test("Wilcoxon normal agrees with SciPy, corrected and Pratt", () => {
  const { d, pratt_two, greater_corrected } = judge.normal;
  near(wilcoxon(d).p_greater, greater_corrected, 1e-12);
  near(wilcoxon(d, { zeros: "pratt", continuity: false }).p, pratt_two, 1e-12);
});

Deno.test("Wilcoxon vectors: plain and with ties and zeros", () => {
  const plain = [1.3, -0.4, 2.1, 0.9, 3.2, -1.1, 0.7, 2.8, 1.9];
  assertEquals([wilcoxon(plain).W, wilcoxon(plain).p, wilcoxon(plain).p_greater], [
    40,
    0.0390625,
    0.01953125,
  ]);
  near(wilcoxon(plain, { method: "normal" }).p_greater, 0.0220054920);
  near(wilcoxon(plain, { method: "normal", continuity: false }).p_greater, 0.0190758551);
  const ties = [0.03, 0, -0.01, 0.02, 0.02, 0, 0.05, 0.04, -0.02, 0.06], t = wilcoxon(ties);
  assertEquals([t.W, t.n, t.zeros, t.p, t.p_greater], [32, 8, 2, 0.0625, 0.03125]);
  near(wilcoxon(ties, { method: "normal" }).p, 0.0574707447);
  const pratt = wilcoxon(ties, { zeros: "pratt", continuity: false });
  assertEquals([pratt.W, pratt.W_minus], [44, 8]);
  near(pratt.p, 0.0640775065);
  assertEquals(wilcoxon([0, 0, 0]).p, 1);
});

Deno.test("Wilcoxon with counts equals the differences repeated", () => {
  const d = [0.3, -0.1, 0.1, 0, 0.2], counts = [2, 1, 0, 1, 3];
  const repeated = d.flatMap((v, i) => new Array(counts[i]).fill(v));
  assertEquals(wilcoxon(d, { counts }), wilcoxon(repeated));
});

Deno.test("Holm", () => {
  each(holm([0.012, 0.030, 0.041, 0.20, 0.004, 0.5]), [0.06, 0.12, 0.123, 0.4, 0.024, 0.5], 1e-12);
});

Deno.test("Friedman agrees with SciPy", () => {
  const { blocks, chi2, p } = judge.friedman;
  near(friedman(blocks).chi2, chi2, 1e-8);
  near(friedman(blocks).p, p, 1e-8);
});

Deno.test("Friedman, Iman-Davenport, Nemenyi and cliques of the reference", () => {
  const blocks = [[71.2, 70.1, 68.4, 69.9], [55.0, 56.3, 52.1, 55.0], [88.1, 88.0, 86.9, 87.2], [
    63.4,
    61.8,
    60.2,
    62.9,
  ], [
    79.9,
    80.4,
    78.0,
    78.8,
  ], [90.5, 89.7, 89.7, 90.1]];
  const f = friedman(blocks);
  each(f.mean_ranks, [1.416667, 2.083333, 3.916667, 2.583333]);
  each([f.chi2, f.p, f.chi2_uncorrected, f.iman_davenport_F!, f.iman_davenport_p, f.cd05, f.cd10], [
    12.517241,
    0.005805902,
    12.1,
    11.415094,
    0.000372100,
    1.914843,
    1.707865,
  ]);
  const p = (i: number, j: number) => nemenyi(f.mean_ranks[i] - f.mean_ranks[j], 4, 6);
  each([p(0, 1), p(0, 2), p(0, 3), p(1, 2), p(1, 3), p(2, 3)], [
    0.807757,
    0.004426,
    0.398631,
    0.066389,
    0.908132,
    0.278639,
  ]);
  assertEquals(cliques(f.mean_ranks, f.cd05), [[0, 1, 3], [1, 3, 2]]);
  assertEquals(cliques(f.mean_ranks, f.cd10), [[0, 1, 3], [3, 2]]);
});

Deno.test("Friedman: perfect agreement, all ties, two methods", () => {
  const agree = friedman([[3, 2, 1], [3, 2, 1], [5, 4, 3]]);
  assertEquals([agree.iman_davenport_F, agree.iman_davenport_p], [null, 0]);
  const tied = friedman([[1, 1, 1], [2, 2, 2]]);
  assertEquals([tied.chi2, tied.p, tied.iman_davenport_F, tied.iman_davenport_p], [0, 1, 0, 1]);
  assert(Math.abs(friedman([[1, 0], [1, 0], [0, 1], [1, 0], [1, 0]]).chi2 - 9 / 5) < 1e-9);
});
