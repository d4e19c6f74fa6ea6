import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { resencS } from "../../lib/arch/resenc.ts";
import { openDataset } from "../../lib/data/cases.ts";
import { writeNifti } from "../../lib/data/nifti.ts";
import { phantom } from "../../lib/data/phantom.ts";
import { decode, encode } from "../../lib/data/safetensors.ts";
import { UserError } from "../../lib/errors.ts";
import { type ModelInfo, openModel } from "../../lib/eval/model.ts";
import { Segmenter } from "../../lib/eval/segmenter.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { memory } from "../../lib/tensor.ts";
import { finetune, Finetuning, standOf } from "../../lib/train/finetune.ts";
import { defaultPatch, planFinetuning, standardise } from "../../lib/train/finetune_plan.ts";
import type { Schedule } from "../../lib/train/phases.ts";
import { readRun, transferEncoder } from "../../lib/train/transfer.ts";
import { summary } from "../../lib/train/validation.ts";

const identity = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];

/** Small phantoms in the nnU-Net raw layout. */
async function dataset(count: number, channels = 1): Promise<string> {
  const folder = await Deno.makeTempDir();
  for (const name of ["imagesTr", "labelsTr"]) await Deno.mkdir(join(folder, name));
  const named = Object.fromEntries(Array.from({ length: channels }, (_, c) => [c, `C${c}`]));
  const json = {
    name: "phantoms",
    channel_names: named,
    labels: { background: 0, ventricles: 1, nuclei: 2 },
  };
  await Deno.writeTextFile(join(folder, "dataset.json"), JSON.stringify(json));
  for (let i = 0; i < count; i++) {
    const { shape, images, label } = phantom(0, i, 32, channels);
    const files = images.map((data, c) => [`imagesTr/p${i}_000${c}.nii.gz`, data] as const);
    for (const [name, data] of [...files, [`labelsTr/p${i}.nii.gz`, label] as const]) {
      await Deno.writeFile(join(folder, name), await writeNifti({ shape, data, affine: identity }));
    }
  }
  return folder;
}

function info(folder: string, schedule: Schedule, of: number, train: string[]): ModelInfo {
  const { channels, labels, labelNames, name } = openDataset(folder);
  return {
    task: "segmentation",
    method: "scratch",
    arch: "resenc-s",
    patch: [32, 32, 32],
    recipe: "onemmiso",
    init: "nnunet",
    spacing: [1, 1, 1],
    channels,
    labels,
    labelNames,
    dataset: name,
    fold: 0,
    seed: 1,
    schedule,
    steps: 0,
    of,
    batch: 2,
    lr: 0.01,
    train,
  };
}

/** A run folder with the encoder of a fresh network. */
async function run(): Promise<string> {
  const folder = await Deno.makeTempDir();
  await Deno.mkdir(join(folder, "checkpoint"));
  using parameters = new Parameters(7);
  resencS.build(parameters, 1, 1);
  await Deno.writeFile(join(folder, "checkpoint", "weights.safetensors"), encode(parameters.values(), {}));
  const config = { method: "mae", arch: "resenc-s", patch: [32, 32, 32], recipe: "amaes" };
  await Deno.writeTextFile(join(folder, "run.json"), JSON.stringify({ config }));
  return folder;
}

Deno.test("finetune: the loss falls, the model opens and scores alike, no tensor stays", async () => {
  const [folder, out] = [await dataset(2), await Deno.makeTempDir()];
  const before = memory().tensors;
  const tuning = new Finetuning(openDataset(folder), info(folder, "scratch", 12, ["p0"]));
  const { rows, steps, interrupted } = await finetune(tuning, out, ["p1"]);
  assertEquals([steps, interrupted, rows.length], [12, undefined, 2]);
  const lines = (await Deno.readTextFile(join(out, "metrics.jsonl"))).trim().split("\n").map((l) =>
    JSON.parse(l)
  );
  const mean = (list: { loss: number }[]) => list.reduce((sum, m) => sum + m.loss, 0) / list.length;
  assert(mean(lines.slice(-3)) < mean(lines.slice(0, 3)) - 0.1, JSON.stringify(lines.map((l) => l.loss)));
  const opened = await openModel(out) as Segmenter;
  const of = await tuning.cases.read("p1");
  assertEquals(await opened.logits(of, false), await (tuning.model as Segmenter).logits(of, false));
  const { dsc_per_label } = summary(rows, tuning.info) as { dsc_per_label: Record<string, number> };
  assertEquals(Object.values(dsc_per_label), rows.map((row) => row.value));
  opened[Symbol.dispose]();
  tuning[Symbol.dispose]();
  assertEquals(memory().tensors, before);
  assertEquals([...Deno.readDirSync(out)].filter((e) => e.name.endsWith(".partial")), []);
  for (const path of [folder, out]) await Deno.remove(path, { recursive: true });
});

Deno.test("finetune: images are prepared as the run's volumes were, from scratch by onemmiso, or as asked", async () => {
  const [folder, from] = [await dataset(2), await run()];
  const flags = { fold: "all", steps: 1, seed: 0, patch: "32" };
  const recipe = async (more: Record<string, unknown>) =>
    (await planFinetuning(folder, "segmentation", { ...flags, ...more })).info.recipe;
  assertEquals(await recipe({ from }), "amaes");
  assertEquals(await recipe({}), "onemmiso");
  await assertRejects(() => recipe({ arch: "unet-b", init: "torch" }), UserError, "--init");
  assertEquals(await recipe({ from, recipe: "onemmiso" }), "onemmiso");
  await assertRejects(() => recipe({ draw: 0 }), UserError, "--labels");
  const file = join(from, "run.json");
  await Deno.writeTextFile(file, (await Deno.readTextFile(file)).replace('"amaes"', '"else"'));
  await assertRejects(() => recipe({ from }), UserError, "run.json");
  for (const path of [folder, from]) await Deno.remove(path, { recursive: true });
});

Deno.test("finetune: a frozen encoder keeps its bytes while the decoder learns", async () => {
  const [folder, out, from] = [await dataset(1), await Deno.makeTempDir(), await run()];
  const pretrained = await readRun(from);
  assertEquals([pretrained.method, pretrained.arch, pretrained.patch], ["mae", "resenc-s", [32, 32, 32]]);
  const tuning = new Finetuning(openDataset(folder), info(folder, "frozen", 2, ["p0"]), pretrained);
  const head = "decoder.seg_layers.3.weight";
  const before = tuning.model.parameters.values().get(head)!.data;
  await finetune(tuning, out, []);
  const file = join(out, "weights.safetensors");
  const { tensors } = decode(await Deno.readFile(file), file);
  const encoder = [...tensors.keys()].filter((name) => name.startsWith("encoder."));
  assert(encoder.length > 20);
  for (const name of encoder) assertEquals(tensors.get(name)!.data, pretrained.weights.get(name)!.data, name);
  assert(tensors.get(head)!.data.some((v, i) => v !== before[i]));
  tuning[Symbol.dispose]();
  for (const path of [folder, out, from]) await Deno.remove(path, { recursive: true });
});

Deno.test("finetune: a stem for one channel is repeated over four and divided by four; a missing tensor is refused", async () => {
  const from = await run();
  const pretrained = await readRun(from);
  using parameters = new Parameters(0);
  resencS.build(parameters, 4, 3);
  transferEncoder(parameters, pretrained, resencS);
  const name = "encoder.stem.convs.0.conv.weight";
  const [one, four] = [pretrained.weights.get(name)!, parameters.values().get(name)!];
  assertEquals(four.shape, [one.shape[0], 4, 3, 3, 3]);
  for (let o = 0; o < one.shape[0]; o++) {
    for (let c = 0; c < 4; c++) {
      for (let k = 0; k < 27; k++) assertEquals(four.data[(o * 4 + c) * 27 + k], one.data[o * 27 + k] / 4);
    }
  }
  pretrained.weights.delete("encoder.stages.0.blocks.0.conv1.conv.weight");
  assertThrows(
    () => transferEncoder(parameters, pretrained, resencS),
    UserError,
    "encoder.stages.0.blocks.0.conv1",
  );
  await assertRejects(() => readRun("/nowhere/at/all"), UserError, "checkpoint");
  await Deno.remove(from, { recursive: true });
});

Deno.test("finetune: the same step gives the same bits", async () => {
  const folder = await dataset(2);
  const losses: number[][] = [];
  for (let i = 0; i < 2; i++) {
    const tuning = new Finetuning(openDataset(folder), info(folder, "sawtooth", 2, ["p0", "p1"]));
    const list = [];
    for (let step = 0; step < 2; step++) {
      const crops = await tuning.crops(step);
      list.push((await tuning.step(step, crops))!.loss);
      crops.views[Symbol.dispose]();
    }
    losses.push(list);
    tuning[Symbol.dispose]();
  }
  assertEquals(losses[0], losses[1]);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("finetune: patches are fitted to the data", async () => {
  const folder = await dataset(1);
  assertEquals(await defaultPatch(openDataset(folder), resencS, "onemmiso"), [32, 32, 32]);
  assertEquals(await defaultPatch(openDataset(folder), resencS, "onemmiso", [64, 64, 32]), [32, 32, 32]);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("finetune: stopped in the middle and gone on, the same bits; another configuration is refused", async () => {
  const [folder, whole, cut] = [await dataset(2), await Deno.makeTempDir(), await Deno.makeTempDir()];
  const about = info(folder, "sawtooth", 4, ["p0", "p1"]);
  const open = () => new Finetuning(openDataset(folder), about);
  {
    using tuning = open();
    await finetune(tuning, whole, []);
    assertEquals(await standOf(whole, about, true, []), "finished");
    await assertRejects(() => standOf(whole, about, false, []), UserError, "resenc-s, 4 of 4 steps");
  }
  {
    // Steps 1 and 2 train the decoder alone; the third, everything with a new optimizer, is where it stops.
    using tuning = open();
    const train = tuning.step.bind(tuning);
    tuning.step = (step, ...rest) => {
      if (step === 2) Deno.kill(Deno.pid, "SIGTERM");
      return train(step, ...rest);
    };
    const { interrupted, steps } = await finetune(tuning, cut, []);
    assert(interrupted === "SIGTERM" && steps >= 2 && steps < 4, `${steps}`);
    assertEquals(await standOf(cut, about, true, []), steps);
    await assertRejects(() => standOf(cut, about, false, []), UserError, "--resume");
    await assertRejects(
      () => standOf(cut, { ...about, lr: 1 }, true, []),
      UserError,
      "lr is 0.01 there and 1 here",
    );
  }
  {
    using tuning = open();
    assertEquals((await finetune(tuning, cut, [], await standOf(cut, about, true, []) as number)).steps, 4);
  }
  const [a, b] = await Promise.all(
    [whole, cut].map((path) => Deno.readFile(join(path, "weights.safetensors"))),
  );
  assertEquals(a, b);
  const losses = async (path: string) =>
    (await Deno.readTextFile(join(path, "metrics.jsonl"))).trim().split("\n").map((l) => JSON.parse(l).loss);
  assertEquals(await losses(whole), await losses(cut));
  assertEquals([...Deno.readDirSync(cut)].some((entry) => entry.name === "checkpoint"), false);
  for (const path of [folder, whole, cut]) await Deno.remove(path, { recursive: true });
});

Deno.test("finetune: a label that cannot be read is named at the start; without its validation a model is not finished", async () => {
  const [folder, out] = [await dataset(2), await Deno.makeTempDir()];
  const label = join(folder, "labelsTr", "p1.nii.gz");
  const whole = await Deno.readFile(label);
  await Deno.writeFile(label, whole.slice(0, whole.length - 100));
  const about = info(folder, "scratch", 2, ["p0"]);
  const stand = () => standOf(out, about, true, ["p1"]);
  {
    using tuning = new Finetuning(openDataset(folder), about);
    await tuning.cases.check(["p0"]);
    await assertRejects(() => tuning.cases.check(["p0", "p1"]), UserError, label);
    const error = await assertRejects(() => finetune(tuning, out, ["p1"]), UserError, label);
    assert((error as unknown as Error).message.includes("--resume"));
  }
  assertEquals(await stand(), 2);
  {
    using tuning = new Finetuning(openDataset(folder), { ...about, of: 3 });
    const [early, crops] = [await Deno.makeTempDir(), tuning.crops.bind(tuning)];
    tuning.crops = (step) => step === 2 ? Promise.reject(new UserError("bad")) : crops(step);
    await assertRejects(() => finetune(tuning, early, []), UserError, "bad");
    assertEquals(await standOf(early, { ...about, of: 3 }, true, []), 2);
    await Deno.remove(early, { recursive: true });
  }
  const lines = await Deno.readTextFile(join(out, "metrics.jsonl"));
  const weights = await Deno.readFile(join(out, "weights.safetensors"));
  await Deno.writeFile(label, whole);
  {
    using tuning = new Finetuning(openDataset(folder), about);
    const { rows, steps } = await finetune(tuning, out, ["p1"], await stand() as number);
    assertEquals([rows.length, steps], [2, 2]);
  }
  assertEquals(await stand(), "finished");
  assertEquals(await Deno.readTextFile(join(out, "metrics.jsonl")), lines);
  assertEquals(await Deno.readFile(join(out, "weights.safetensors")), weights);
  for (const path of [folder, out]) await Deno.remove(path, { recursive: true });
});

Deno.test("finetune: a classifier and a regression learn which of their images are negatives", async () => {
  const folder = await dataset(6);
  for (const i of [1, 3, 5]) {
    const { shape, images: [image] } = phantom(0, i, 32, 1);
    const negative = await writeNifti({ shape, data: image.map((v) => -v), affine: identity });
    await Deno.writeFile(join(folder, `imagesTr/p${i}_0000.nii.gz`), negative);
  }
  for (const task of ["classification", "regression"] as const) {
    const out = await Deno.makeTempDir();
    const lines = [0, 1, 2, 3, 4, 5].map((i) =>
      `p${i},${task === "regression" ? 40 + 30 * (i % 2) + i : i % 2}\n`
    );
    await Deno.writeTextFile(join(folder, "labels.csv"), "case,label\n" + lines.join(""));
    const data = openDataset(folder, task);
    const { channels, labels, labelNames, name, cases } = data;
    assertEquals(cases.length, 6);
    const target = task === "regression" ? { target: standardise(data, cases) } : {};
    const about = {
      ...info(folder, "warmup", 40, cases),
      task,
      init: "torch" as const,
      channels,
      labels,
      labelNames,
      dataset: name,
      ...target,
    };
    // At 1e-3 some seeds still swing after 40 steps; at this rate 8 of 8 seeds learn it.
    const tuning = new Finetuning(data, { ...about, batch: 4, lr: 3e-4 });
    assert([...tuning.model.parameters.tensors.keys()].every((key) => /^(encoder|head)\./.test(key)));
    const { rows, steps } = await finetune(tuning, out, cases);
    tuning[Symbol.dispose]();
    const metrics = Object.fromEntries(rows.map((row) => [row.metric, row.value!]));
    assertEquals(steps, 40);
    if (task === "classification") assertEquals(metrics.accuracy, 1, JSON.stringify(metrics));
    else assert(metrics.correlation > 0.9, JSON.stringify(metrics));
    await Deno.remove(out, { recursive: true });
  }
  await Deno.remove(folder, { recursive: true });
});
