/** Rows to ranks: the numeric vectors of the reference and the properties a ranking must have. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { audit, fit, readAudit } from "../../lib/eval/audit.ts";
import { bootstrap } from "../../lib/eval/bootstrap.ts";
import { type Competition, competitions, listMissing, parseMissing } from "../../lib/eval/columns.ts";
import { rankCompetition, type TrackResult } from "../../lib/eval/ranking.ts";
import { directions, readRows } from "../../lib/eval/rows.ts";
import { aggregate, parseWeights, plan, type Settings } from "../../lib/eval/schemes.ts";

const known = directions();
const read = (text: string, name = "rows.csv", metric?: string): Competition[] =>
  competitions(readRows([{ name, text }], known, metric), known);
const settings = (change: Partial<Settings> = {}): Settings => ({
  scheme: "mean-then-rank",
  ties: "average",
  missing: parseMissing(undefined),
  average: "column",
  weights: null,
  alpha: 0.05,
  adjust: false,
  ...change,
});
const ranked = (c: Competition, change: Partial<Settings> = {}, replicates = 0) =>
  rankCompetition(c, settings(change), replicates, 0);
/** Cases [n][k] of one dataset as rows. */
const lines = (methods: string[], cases: (number | null)[][], metric = "DSC"): string =>
  cases.flatMap((row, i) =>
    row.map((value, m) => JSON.stringify({ method: methods[m], dataset: "d", case: `c${i}`, metric, value }))
  ).join("\n");
const get = <K extends "rank" | "mean_rank" | "score" | "p_best">(r: TrackResult, key: K) =>
  [...r.final].sort((a, b) => r.methods.indexOf(a.method) - r.methods.indexOf(b.method)).map((f) => f[key]);
const close = (a: (number | null)[], b: number[], tolerance = 1e-6) => {
  assertEquals(a.length, b.length);
  b.forEach((v, i) => assertAlmostEquals(a[i]!, v, tolerance));
};

const ABC = ["A", "B", "C"];
const SCHEMES = [
  [0.80, 0.82, 0.70],
  [0.75, 0.78, 0.74],
  [0.90, 0.91, 0.85],
  [0.66, 0.69, 0.60],
  [0.71, 0.10, 0.65],
  [
    0.84,
    0.86,
    0.80,
  ],
  [0.78, 0.80, 0.79],
  [0.60, 0.63, 0.58],
];

Deno.test("schemes: the same cases tell different stories", () => {
  const [c] = read(lines(ABC, SCHEMES));
  const mean = ranked(c), median = ranked(c, { scheme: "median-then-rank" });
  close(get(mean, "score"), [0.755, 0.69875, 0.71375]);
  close(get(mean, "rank"), [1, 3, 2]);
  close(get(median, "score"), [0.765, 0.79, 0.72]);
  close(get(median, "rank"), [2, 1, 3]);
  const ranks = ranked(c, { scheme: "rank-then-mean" });
  close(get(ranks, "mean_rank"), [2, 1.25, 2.75]);
  close(get(ranks, "rank"), [2, 1, 3]);
  close(get(ranked(c, { scheme: "test-based", ties: "min" }), "rank"), [1, 2, 2]);
  close(get(ranked(c, { scheme: "test-based" }), "rank"), [1, 2.5, 2.5]);
  close(get(ranked(c, { scheme: "test-based", adjust: true }), "rank"), [2, 2, 2]);
  const pair = mean.tests.wilcoxon.find((t) => t.a === "A" && t.b === "B")!;
  close([pair.p_greater, pair.p_less], [0.921875, 0.08203125]);
});

Deno.test("missing values: every policy, and a list without one", () => {
  const [c] = read(
    lines(ABC, [[0.90, 0.88, 0.85], [0.80, 0.82, null], [0.70, 0.69, 0.75], [0.60, null, 0.66]]),
  );
  assertEquals(listMissing(c), ["C on d · DSC · c1", "B on d · DSC · c3"]);
  const by = (missing: string, change: Partial<Settings> = {}) =>
    ranked(c, { missing: parseMissing(missing), ...change });
  close(get(by("worst", { scheme: "rank-then-mean" }), "mean_rank"), [1.75, 2.25, 2]);
  close(get(by("fill:0"), "score"), [0.75, 0.5975, 0.565]);
  close(get(by("fill:0"), "rank"), [1, 2, 3]);
  close(get(by("available"), "score"), [0.75, 0.796667, 0.753333]);
  close(get(by("available"), "rank"), [3, 1, 2]);
  close(get(by("complete"), "score"), [0.8, 0.785, 0.8]);
  close(get(by("complete"), "rank"), [1.5, 3, 1.5]);
  assertEquals(by("complete").columns[0].lost, 2);
});

const GROUPS = `method,dataset,metric,group,value
P,d1,DSC,seg,80.1\nQ,d1,DSC,seg,79.5\nR,d1,DSC,seg,78.8\nP,d1,HD95,seg,4.2\nQ,d1,HD95,seg,3.9\nR,d1,HD95,seg,5.0
P,d2,DSC,seg,66.0\nQ,d2,DSC,seg,67.2\nR,d2,DSC,seg,65.1\nP,d2,HD95,seg,9.1\nQ,d2,HD95,seg,9.9\nR,d2,HD95,seg,8.7
P,d3,AUROC,cls,0.71\nQ,d3,AUROC,cls,0.78\nR,d3,AUROC,cls,0.74`;

Deno.test("groups, directions and weights of a dataset table", () => {
  const [c] = read(GROUPS);
  const table: Partial<Settings> = { scheme: "rank-then-mean" };
  const flat = ranked(c, table);
  close(get(flat, "mean_rank"), [2, 1.6, 2.4]);
  close(flat.methods.map((m) => flat.final.find((f) => f.method === m)!.groups.seg), [1.75, 1.75, 2.5]);
  close(get(ranked(c, { ...table, average: "group" }), "mean_rank"), [2.375, 1.375, 2.25]);
  const weights = parseWeights("seg=3,cls=1", ["seg", "cls"]);
  close(get(ranked(c, { ...table, weights }), "mean_rank"), [2.0625, 1.5625, 2.375]);
  assertThrows(() => parseWeights("seg=3,clz=1", ["seg", "cls"]), UserError, 'group "clz"');
  assertThrows(() => parseWeights("seg=3", ["seg", "cls"]), UserError, "none for cls");
});

Deno.test("consensus: raw mean ranks keep margins, re-ranked places do not", () => {
  const tasks = [[1.1, 2.3, 2.6], [2.0, 1.9, 2.1]].map((r) => Float64Array.from(r));
  const units = [0, 1].map((dataset) => ({ dataset, metric: "m", group: "g" }));
  close([...aggregate(tasks, units, settings(), [1, 1], 3)], [1.55, 2.1, 2.35]);
});

const COIN = [[0.80, 0.78, 0.60], [0.70, 0.76, 0.72], [0.90, 0.80, 0.70], [0.50, 0.58, 0.40]];

Deno.test("bootstrap: exact enumeration of four cases", () => {
  const [c] = read(lines(ABC, COIN)), r = ranked(c, {}, 1000), b = r.bootstrap!;
  assertEquals([b.replicates, b.exact], [256, true]);
  assertEquals(b.rank_counts, {
    A: { "1": 96, "1.5": 16, "2": 143, "3": 1 },
    B: { "1": 144, "1.5": 16, "2": 96 },
    C: { "2": 1, "3": 255 },
  });
  close(get(r, "p_best"), [0.40625, 0.59375, 0]);
  assertEquals(ABC.map((m) => b.rank_interval95[m]), [[1, 2], [1, 2], [3, 3]]);
  assertEquals(Object.values(b.tau_counts).sort((x, y) => x - y), [16, 97, 143]);
  close([b.tau_mean, b.tau_median], [0.735927, 1]);
  close(ABC.flatMap((m) => r.columns[0].intervals95![m]!), [0.575, 0.85, 0.63, 0.79, 0.475, 0.71]);
  assertEquals(ranked(c, { scheme: "rank-then-mean" }, 1).bootstrap!.rank_counts, {
    A: { "1": 80, "1.5": 24, "2": 133, "2.5": 6, "3": 13 },
    B: { "1": 152, "1.5": 24, "2": 80 },
    C: { "2": 13, "2.5": 6, "3": 237 },
  });
});

Deno.test("bootstrap: sampling agrees with enumeration, and the same seed gives the same numbers", () => {
  const [c] = read(lines(ABC, COIN));
  const sampled = (seed: number) => bootstrap(c, plan(c, settings()), 4000, seed, "cases", 0);
  const a = sampled(0);
  assertEquals([a.exact, a.replicates], [false, 4000]);
  close(ABC.map((m) => a.p_best[m].fractional), [0.40625, 0.59375, 0], 2 * a.simulation_error);
  assertAlmostEquals(a.tau_mean!, 0.735927, 0.02);
  assertEquals(JSON.stringify(sampled(0)), JSON.stringify(a));
  assert(JSON.stringify(sampled(1)) !== JSON.stringify(a));
});

const S3D = `dataset,No (Dyn.),No (Fix.),VoCo,VF,MG,S3D,S3D-Long
D1,57.81,59.82,59.70,59.29,58.64,60.35,59.85\nD2,63.66,56.53,56.25,61.01,65.39,65.24,64.81
D3,89.18,89.24,88.78,89.03,89.38,89.60,89.34\nD4,63.28,65.52,62.97,65.76,65.93,66.95,64.58
D5,85.64,83.44,83.07,84.24,83.91,84.08,84.02\nD6,60.28,78.17,77.40,80.09,79.67,80.00,80.01
D7,77.94,79.44,78.14,78.96,78.85,79.70,79.89\nD8,59.00,61.85,57.47,61.49,62.52,62.11,61.93
D9,66.73,65.90,67.65,63.34,68.00,68.62,67.94\nD10,93.07,92.51,91.97,92.16,92.36,92.19,92.90
D11,46.76,41.97,40.16,44.96,45.48,47.26,44.15`;
const NAMES = ["No (Dyn.)", "No (Fix.)", "VoCo", "VF", "MG", "S3D", "S3D-Long"];
const byName = (r: TrackResult, key: "rank" | "mean_rank" | "p_best") =>
  NAMES.filter((n) => r.methods.includes(n)).map((n) => r.final.find((f) => f.method === n)![key]);

Deno.test("the published S3D table: ranks, tests, stability", () => {
  const [c] = read(S3D, "s3d.csv", "DSC"), r = ranked(c, { scheme: "rank-then-mean" }, 10000);
  close(byName(r, "mean_rank"), [4.636364, 4.545455, 6.272727, 4.363636, 3.181818, 2, 3]);
  close(byName(r, "rank"), [6, 5, 7, 4, 3, 1, 2]);
  close(byName(ranked(c), "rank"), [7, 5, 6, 4, 2, 1, 3]);
  close(byName(ranked(c, { scheme: "test-based", ties: "min" }), "rank"), [6, 3, 6, 3, 3, 1, 2]);
  assertAlmostEquals(r.schemes.find((s) => s.scheme === "mean-then-rank")!.tau!, 0.809524, 1e-6);
  const f = r.tests.friedman!;
  close([f.chi2, f.p, f.iman_davenport_F, f.cd05], [27.506494, 0.000116353, 7.145749, 2.715793]);
  assertEquals(r.tests.cliques05, [["S3D", "S3D-Long", "MG", "VF", "No (Fix.)", "No (Dyn.)"], [
    "VF",
    "No (Fix.)",
    "No (Dyn.)",
    "VoCo",
  ]]);
  const expected: Record<string, number[]> = {
    "No (Dyn.)": [59, 0.018555, 0.055664],
    "No (Fix.)": [63, 0.004883, 0.024414],
    "VoCo": [66, 0.000977, 0.005859],
    "VF": [61, 0.009766, 0.039063],
    "MG": [56.5, 0.034180, 0.068359],
    "S3D-Long": [52, 0.101563, 0.101563],
  };
  for (const [name, numbers] of Object.entries(expected)) {
    const t = r.tests.wilcoxon.find((t) => t.a === "S3D" && t.b === name)!;
    close([t.W, t.p, t.p_holm_winner], numbers);
  }
  assert(r.stability.leave_one_dataset_out.every((l) => l.winner.join() === "S3D"));
  const b = r.bootstrap!;
  close([b.p_best["S3D"].fractional, b.p_best["S3D-Long"].fractional, b.p_best["S3D"].shared, b.tau_mean], [
    0.940,
    0.050,
    0.949,
    0.817,
  ], 0.015);
  assertEquals([b.rank_interval95["S3D"], b.rank_interval95["S3D-Long"], b.rank_interval95["VF"]], [[1, 2], [
    1,
    4,
  ], [3, 6]]);
});

Deno.test("audit: envelope of ties, wrong sum, hidden competitor", () => {
  const table = "dataset,U,V,W\na,70.1,70.1,69.0\nb,55.3,54.0,55.9\nc,80.0,81.5,79.2\nd,61.2,60.8,60.8";
  const all = read(table, "t.csv", "DSC"), s = settings({ scheme: "rank-then-mean" });
  const judge = (u: string, v: string, w: string) =>
    audit(
      all,
      s,
      readAudit(`track,group,method,rank\n,overall,U,${u}\n,overall,V,${v}\n,overall,W,${w}\n`, "p.csv"),
    );
  const good = judge("1.50", "2.25", "2.25");
  assertEquals(good.audit.map((a) => a.verdict), ["possible", "possible", "possible"]);
  assertEquals(good.audit.map((a) => a.envelope), [[1.5, 1.75], [1.75, 2.25], [2.25, 2.5]]);
  const bad = judge("1.62", "2.00", "2.10");
  assertEquals(bad.audit.map((a) => a.verdict), ["reproduced", "reproduced", "impossible"]);
  assertAlmostEquals(bad.sums[0].sum - bad.sums[0].expected, -0.28, 1e-9);
  assertEquals(judge("2.00", "2.50", "3.00").sums[0].hidden_mean_rank, 2.5);
  assertThrows(() => judge("x", "2", "2"), UserError, "p.csv:2");
});

Deno.test("audit: the printed S3D ranks hide S3D-Long", () => {
  const printed = "method,rank\nNo (Dyn.),4.64\nNo (Fix.),4.55\nVoCo,6.27\nVF,4.36\nMG,3.18\nS3D,2.00\n";
  const result = audit(
    read(S3D, "s.csv", "DSC"),
    settings({ scheme: "rank-then-mean" }),
    readAudit(printed, "p.csv"),
  );
  assert(result.audit.every((a) => a.verdict === "reproduced" && a.hidden_mean_rank === 3));
  assertStringIncludes(result.sums[0].finding, "S3D-Long");
});

Deno.test("audit: the weights behind printed averages are found", () => {
  const printed = readAudit("method,group,rank\nP,overall,2.06\nQ,overall,1.56\nR,overall,2.38\n", "p.csv");
  const found = fit(read(GROUPS), settings({ scheme: "rank-then-mean" }), printed);
  assertEquals(found, ["--weights cls=1,seg=3"]);
});

Deno.test("properties: row order, direction, transforms, equal columns, twenty methods on one case", () => {
  const rows = lines(ABC, SCHEMES).split("\n"), turned = rows.map((_, i) => rows[(i * 11) % rows.length]);
  const plain = ranked(read(rows.join("\n"))[0], {}, 50);
  assertEquals(JSON.stringify(ranked(read(turned.join("\n"))[0], {}, 50)), JSON.stringify(plain));
  const negated = SCHEMES.map((r) => r.map((v) => -v));
  close(get(ranked(read(lines(ABC, negated, "HD95"))[0]), "rank"), [1, 3, 2]);
  const cubed = ranked(read(lines(ABC, SCHEMES.map((r) => r.map((v) => v ** 3))))[0], {
    scheme: "rank-then-mean",
  });
  close(get(cubed, "mean_rank"), [2, 1.25, 2.75]);
  const equal = ranked(read(lines(ABC, SCHEMES.map((r) => r.map(() => 0.5))))[0], {}, 20);
  assertEquals([get(equal, "rank"), equal.tests.wilcoxon[0].p, equal.tests.friedman!.p], [[2, 2, 2], 1, 1]);
  assert(!/NaN|Infinity/.test(JSON.stringify(equal)));
  const many = Array.from({ length: 20 }, (_, i) => `m${i}`);
  assertEquals(
    get(ranked(read(lines(many, [many.map((_, i) => 1 - i / 20)]))[0], {}, 10), "rank").at(-1),
    20,
  );
});

Deno.test("repeats are averaged, tracks compete apart, architectures are tracks where a method has several", () => {
  const text = `method,arch,dataset,case,metric,seed,value
A,x,d,1,DSC,0,0.6\nA,x,d,1,DSC,1,0.8\nB,x,d,1,DSC,0,0.65\nA,y,d,1,DSC,0,0.1\nB,y,d,1,DSC,0,0.2`;
  const all = read(text);
  assertEquals(all.map((c) => c.track), ["x", "y"]);
  close(get(ranked(all[0]), "score"), [0.7, 0.65]);
  assertEquals(all[0].repeats, 1);
});

Deno.test("bad rows are refused with file and line", () => {
  const refused = (text: string, words: string) => assertThrows(() => read(text), UserError, words);
  refused("", "rows.csv: there are no rows");
  refused("method,dataset,metric,value\nA,d,DSC,0.5\nA,d,DSC,0.6", "rows.csv:3: the same");
  refused("method,dataset,metric,value\nA,d,DSC,good", 'rows.csv:2: value is "good"');
  refused("method,dataset,metric,value\nA,d,DICEY,0.5", 'rows.csv:2: metric "DICEY"');
  refused("method,dataset,metric,value\nA,d,DSC", "rows.csv:2: 3 fields");
  refused("method,dataset,metric,case,value\nA,d,DSC,c,1\nB,d,DSC,,1", "rows.csv:3: dataset");
  refused('{"method":"A","dataset":"d","metric":"DSC","value":1}\n{oops', "rows.csv:2: not a JSON object");
  refused('{"method":"A","metric":"DSC","value":1}', "rows.csv:1: dataset is missing");
  refused("dataset,A,B\nd,1,2", "rows.csv:1: a wide table");
});
