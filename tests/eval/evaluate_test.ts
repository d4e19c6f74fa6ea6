import { assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { writeNifti } from "../../lib/data/nifti.ts";
import { UserError } from "../../lib/errors.ts";
import {
  findLabels,
  type Origin,
  pairFiles,
  scoreCase,
  trainedOn,
  truthFolder,
} from "../../lib/eval/evaluate.ts";

const AFFINE = [[1, 0, 0, -5], [0, 2, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]];
const ORIGIN: Origin = {
  method: "mae",
  arch: "resenc-l",
  task: "segmentation",
  dataset: "toy",
  fold: 0,
  seed: 0,
};
const TRUTH = [0, 1, 1, 0, 0, 2, 2, 0, 0, 0, 0, 0];
const GUESS = [0, 1, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0];

interface Change {
  values?: number[];
  affine?: number[][];
  shape?: [number, number, number];
  name?: string;
}

/** A folder with `truth/a`, `predictions/a` (changed as asked) and, with `json`, `dataset.json`. */
async function make(
  { values = GUESS, affine = AFFINE, shape = [2, 2, 3], name = "a" }: Change = {},
  json?: unknown,
  truth = TRUTH,
) {
  const root = await Deno.makeTempDir();
  const write = async (folder: string, file: string, v: Parameters<typeof writeNifti>[0]) => {
    await Deno.mkdir(join(root, folder), { recursive: true });
    await Deno.writeFile(join(root, folder, `${file}.nii.gz`), await writeNifti(v));
  };
  await write("truth", "a", { shape: [2, 2, 3], data: Uint8Array.from(truth), affine: AFFINE });
  await write("truth", "b", { shape: [2, 2, 3], data: Uint8Array.from(truth), affine: AFFINE });
  await write("predictions", name, { shape, data: Float32Array.from(values), affine });
  if (json) await Deno.writeTextFile(join(root, "dataset.json"), JSON.stringify(json));
  return { root, predictions: join(root, "predictions"), truth: join(root, "truth") };
}

async function score(...args: Parameters<typeof make>) {
  const { root, predictions, truth } = await make(...args);
  try {
    const { pairs, unpredicted } = await pairFiles(predictions, truth);
    const labels = await findLabels(truth, pairs);
    const rows = [];
    for (const pair of pairs) rows.push(...await scoreCase(pair, labels, ["DSC", "NSD"], 1, ORIGIN));
    return { rows, unpredicted };
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

Deno.test("evaluate: a row per case, label and metric, labels from the values", async () => {
  const { rows, unpredicted } = await score();
  assertEquals(unpredicted, ["b"]);
  assertEquals(rows.map((r) => [r.case, r.metric, r.label]), [
    ["a", "DSC", 1],
    ["a", "NSD", 1],
    ["a", "DSC", 2],
    ["a", "NSD", 2],
  ]);
  assertEquals(Object.keys(rows[0]).join(" "), "method arch task dataset fold seed case metric label value");
  assertAlmostEquals(rows[0].value!, 2 / 3, 1e-12);
  assertEquals(rows.slice(2).map((r) => r.value), [1, 1]);
});

Deno.test("evaluate: labels of dataset.json, null when absent, regions and ignore", async () => {
  const named = await score({}, { labels: { background: 0, both: [2, 1], one: 1, four: 4 } });
  assertEquals(named.rows.map((r) => r.label), [1, 1, "1+2", "1+2", 4, 4]);
  // The union has 4 voxels in the truth, 3 in the prediction, all of them right.
  assertAlmostEquals(named.rows[2].value!, 6 / 7, 1e-12);
  assertEquals(named.rows.slice(4).map((r) => r.value), [null, null]);
  // A region scores as the same voxels under one label.
  const merged = (values: number[]) => values.map((v) => v && 1);
  const plain = await score({ values: merged(GUESS) }, { labels: { background: 0, one: 1 } }, merged(TRUTH));
  assertEquals(named.rows.slice(2, 4).map((r) => r.value), plain.rows.map((r) => r.value));
  const decathlon = await score({}, { labels: { "0": "background", "1": "one", "2": "two" } });
  assertEquals(decathlon.rows.map((r) => r.label), [1, 1, 2, 2]);
  // The only wrong voxel is ignored in the truth: nothing is wrong any more.
  const truth = TRUTH.with(2, 3);
  const ignoring = await score({ values: GUESS.with(2, 1) }, {
    labels: { background: 0, one: 1, two: 2, ignore: 3 },
  }, truth);
  assertEquals(ignoring.rows.map((r) => [r.label, r.value]), [[1, 1], [1, 1], [2, 1], [2, 1]]);
});

Deno.test("evaluate: the truth may be the folder of a dataset", async () => {
  const root = await Deno.makeTempDir();
  assertEquals(await truthFolder(root), root);
  await Deno.mkdir(join(root, "labelsTr"));
  assertEquals(await truthFolder(root), join(root, "labelsTr"));
  assertEquals(await truthFolder(join(root, "labelsTr")), join(root, "labelsTr"));
  await Deno.remove(root, { recursive: true });
});

Deno.test("evaluate: scores of training cases are named as such", () => {
  const written = { dataset: "toy", train: ["a", "b"] };
  assertStringIncludes(trainedOn(written, ["a", "c"], "toy")!, "1 of the 2 scored cases");
  assertStringIncludes(trainedOn(written, ["a", "b"], undefined)!, "2 of the 2");
  assertEquals([trainedOn(written, ["c"], "toy"), trainedOn(written, ["a"], "other")], [
    undefined,
    undefined,
  ]);
  assertEquals(trainedOn({}, ["a"], "toy"), undefined);
});

Deno.test("evaluate: what cannot be compared is refused, and the file is named", async () => {
  const refused: [Change, string, unknown?][] = [
    [{ shape: [1, 4, 3] }, "shape"],
    [{ affine: AFFINE.map((r, i) => i === 0 ? [1, 0, 0, -4.5] : r) }, "0.500 mm"],
    [{ affine: AFFINE.map((r, i) => i === 0 ? [-1, 0, 0, -5] : r) }, "mm away"],
    [{ name: "c" }, "no truth"],
    [{ values: GUESS.with(1, NaN) }, "NaN"],
    [{ values: GUESS.with(1, -1) }, "value -1"],
    [{ values: GUESS.with(1, 0.5) }, "value 0.5"],
    [{ values: GUESS.with(1, 65536) }, "value 65536"],
    [{}, "label 2 is not in", { labels: { background: 0, one: 1 } }],
    [{}, "labels.one", { labels: { background: 0, one: "x", two: 2.5 } }],
  ];
  for (const [change, words, json] of refused) {
    await assertRejects(() => score(change, json), UserError, words);
  }
  const near = await score({ affine: AFFINE.map((r, i) => i === 0 ? [1, 0, 0, -5.001] : r) });
  assertEquals(near.rows.length, 4);
});
