/** Folders of pretraining and of fine-tuning: neither takes the other's, nor one that it cannot read. */
import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { UserError } from "../../lib/errors.ts";
import { openModel } from "../../lib/eval/model.ts";
import { standOf } from "../../lib/train/finetune.ts";
import { type RunConfig, RunFolder } from "../../lib/train/run_folder.ts";
import { aboutRun, readRun } from "../../lib/train/transfer.ts";
import { tuningOf } from "./tuning.ts";

const config: RunConfig = {
  ...{ method: "mae", arch: "resenc-s", patch: [32, 32, 32], batch: 2, steps: 9, seed: 0, lr: 0.01 },
  ...{ options: {}, compat: [], data: "hash" },
};

/** A folder with these files; an object is written as JSON. */
async function folderOf(files: Record<string, unknown>): Promise<string> {
  const folder = await Deno.makeTempDir();
  for (const [name, value] of Object.entries(files)) {
    if (name.includes("/")) await Deno.mkdir(join(folder, name, ".."), { recursive: true });
    await Deno.writeTextFile(join(folder, name), JSON.stringify(value));
  }
  return folder;
}

/** Opens the folder as pretrain does; what it then says of itself. */
async function opened(folder: string, resume: boolean, changes: Partial<RunConfig> = {}) {
  const run = await RunFolder.open(folder, { ...config, ...changes }, resume);
  run.close();
  return { step: run.step, written: JSON.parse(await Deno.readTextFile(join(folder, "run.json"))).config };
}

/** `files` are refused by pretrain, with --resume and without, in words that hold `text`, and nothing changes. */
async function refused(files: Record<string, unknown>, text: string, changes: Partial<RunConfig> = {}) {
  for (const resume of [true, false]) {
    const folder = await folderOf(files);
    await assertRejects(() => opened(folder, resume, changes), UserError, resume ? text : folder);
    for (const [name, value] of Object.entries(files)) {
      assertEquals(JSON.parse(await Deno.readTextFile(join(folder, name))), value);
    }
    await Deno.remove(folder, { recursive: true });
  }
}

const state = "checkpoint/state.json";
const run = { config, format: 1 };

Deno.test("run folder: a model, a checkpoint without run.json, another format, a checkpoint without its step are refused", async () => {
  await refused({ "model.json": { task: "segmentation" } }, "model.json");
  await refused({ [state]: { step: 3 } }, "run.json");
  await refused({ "run.json": { config, format: 2 }, [state]: { step: 3 } }, "format is 2");
  await refused({ "run.json": run, [state]: {} }, "state.json: step is undefined");
  await refused(
    { "run.json": run, "checkpoint/weights.safetensors": 0 },
    "state.json: there is no such file",
  );
});

Deno.test("run folder: --resume compares with run.json before the first checkpoint too, and keeps its start weights", async () => {
  const started = { config: { ...config, from: "abc" }, format: 1 };
  const before = await folderOf({ "run.json": started });
  for (const [changes, text] of [[{ seed: 7 }, "seed is 0 there and 7 here"], [{}, "from is"]] as const) {
    await assertRejects(() => opened(before, true, changes), UserError, text);
  }
  assertEquals((await opened(before, true, { from: "abc" })).step, 0);
  assertEquals((await opened(before, false, { seed: 7 })).written.seed, 7);

  const after = await folderOf({ "run.json": started, [state]: { step: 3 } });
  assertEquals(await opened(after, true), { step: 3, written: started.config });
  await assertRejects(() => opened(after, true, { from: "abd" }), UserError, 'from is "abc" there');
  const plain = await folderOf({ "run.json": run, [state]: { step: 3 } });
  await assertRejects(() => opened(plain, true, { from: "abc" }), UserError, "from is not given there");
  for (const path of [before, after, plain]) await Deno.remove(path, { recursive: true });
});

Deno.test("model folder: a pretraining run and a checkpoint of unknown origin are refused", async () => {
  using tuning = tuningOf({});
  for (
    const [files, text] of [[{ "run.json": run }, "run.json"], [
      { [state]: { step: 3 } },
      "model.json",
    ]] as const
  ) {
    const folder = await folderOf(files);
    await assertRejects(() => standOf(folder, tuning.info, true, []), UserError, text);
    await assertRejects(() => standOf(folder, tuning.info, false, []), UserError, folder);
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("start weights and models: a file in place of a folder, another format, an unknown network are named", async () => {
  using tuning = tuningOf({});
  const model = { ...tuning.info, arch: "foo" };
  const folder = await folderOf({ "cva.pth": 0, "run.json": { config, format: 2 }, "model.json": model });
  const file = join(folder, "cva.pth");
  for (const read of [readRun, aboutRun]) {
    await assertRejects(() => read(file), UserError, `weights import ${file}`);
    await assertRejects(() => read(folder), UserError, "format is 2");
  }
  await assertRejects(() => openModel(folder), UserError, `model.json: arch is "foo"`);
  await Deno.remove(folder, { recursive: true });
});
