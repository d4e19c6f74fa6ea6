import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { findInputs } from "../../lib/data/inputs.ts";
import { type Outcome, preprocess, shardOf } from "../../lib/data/preprocess.ts";
import { readIndex, Store, StoreWriter } from "../../lib/data/store.ts";
import { writeNifti } from "../../lib/data/nifti.ts";
import { storeReport } from "../../lib/report/store.ts";
import { UsageError, UserError } from "../../lib/errors.ts";

const EYE = [[1, 0, 0, -4], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]];

/** A folder with two good volumes, one cut file and a label. */
async function folder(): Promise<string> {
  const root = await Deno.makeTempDir();
  await Deno.mkdir(join(root, "imagesTr"));
  await Deno.mkdir(join(root, "labelsTr"));
  const make = (seed: number) =>
    writeNifti({
      shape: [3, 4, 5],
      data: Float32Array.from({ length: 60 }, (_, i) => (i * seed) % 17 + 1),
      affine: EYE,
    });
  await Deno.writeFile(join(root, "imagesTr", "a_0000.nii.gz"), await make(3));
  await Deno.writeFile(join(root, "imagesTr", "a_0001.nii.gz"), await make(5));
  await Deno.writeFile(join(root, "imagesTr", "b_0000.nii.gz"), (await make(7)).slice(0, -30));
  await Deno.writeFile(join(root, "labelsTr", "a.nii.gz"), await make(2));
  return root;
}

async function go(store: string, paths: string[], shard = "1/1"): Promise<Outcome[]> {
  const writer = await StoreWriter.open(store);
  return await Array.fromAsync(preprocess(writer, shardOf(await findInputs(paths), shard), "onemmiso"));
}

function partials(path: string): string[] {
  return [...Deno.readDirSync(path)].flatMap((
    e,
  ) => [
    ...(e.name.includes("partial") ? [e.name] : []),
    ...(e.isDirectory ? partials(join(path, e.name)) : []),
  ]);
}

Deno.test("preprocess: stores, refuses with a reason, resumes, notices a changed file", async () => {
  const root = await folder();
  const store = join(root, "store");
  const status = (list: Outcome[]) => list.map((o) => [o.id, o.status]);
  const first = await go(store, [root]);
  assertEquals(status(first), [["a_0000", "stored"], ["a_0001", "stored"], ["b_0000", "refused"]]);
  assert(first[2].reason.includes("cut"));
  const opened = await Store.open(store);
  assertEquals(opened.volumes.map((v) => [v.id, v.shape, v.affine]), [
    ["a_0000", [3, 4, 5], EYE],
    ["a_0001", [3, 4, 5], EYE],
  ]);
  const data = await opened.read("a_0000");
  assert(Math.abs(data.reduce((a, b) => a + b)) < 0.02);

  const index = await Deno.readTextFile(join(store, "index.jsonl"));
  const second = await go(store, [root]);
  assertEquals(status(second), [["a_0000", "present"], ["a_0001", "present"], ["b_0000", "refused"]]);
  assertEquals(await Deno.readTextFile(join(store, "index.jsonl")), index);

  await Deno.copyFile(join(root, "imagesTr", "a_0001.nii.gz"), join(root, "imagesTr", "b_0000.nii.gz"));
  await Deno.remove(join(store, "volumes", "a_0000"), { recursive: true });
  assertEquals(status(await go(store, [root])), [["a_0000", "stored"], ["a_0001", "present"], [
    "b_0000",
    "stored",
  ]]);
  const shard = join(store, "volumes", "a_0001", "c", "0", "0", "0");
  await Deno.truncate(shard, 100);
  assertEquals(status(await go(store, [root])).map(([, s]) => s), ["present", "stored", "present"]);
  await Deno.remove(shard);
  assertEquals(status(await go(store, [root])).map(([, s]) => s), ["present", "stored", "present"]);
  await (await Store.open(store)).read("a_0001");
  assertEquals((await readIndex(store)).size, 3);
  assertEquals(partials(store), []);
  await Deno.remove(root, { recursive: true });
});

Deno.test("preprocess: shards write one store side by side", async () => {
  const root = await folder();
  const store = join(root, "store");
  const both = await Promise.all([go(store, [root], "1/2"), go(store, [root], "2/2")]);
  assertEquals(both.map((list) => list.length), [2, 1]);
  assertEquals([...(await readIndex(store)).keys()].sort(), ["a_0000", "a_0001", "b_0000"]);
  for (const bad of ["0/2", "3/2", "1", "a/b", "1/0"]) {
    assertThrows(() => shardOf([1], bad), UsageError, "K/N");
  }
  await Deno.remove(root, { recursive: true });
});

Deno.test("preprocess: ids are unique, also across runs", async () => {
  const [one, two] = [await folder(), await folder()];
  await Deno.rename(join(two, "imagesTr", "a_0001.nii.gz"), join(two, "imagesTr", "a_0000.nii.gz"));
  const ids = (await findInputs([one, two])).map((input) => input.id);
  assertEquals(new Set(ids).size, 5);
  const store = join(one, "store");
  await go(store, [join(one, "imagesTr", "a_0000.nii.gz")]);
  const [again] = await go(store, [join(two, "imagesTr", "a_0000.nii.gz")]);
  assertEquals(again.status, "stored");
  assert(/^a_0000-[0-9a-f]{8}$/.test(again.id));
  assertEquals((await go(store, [join(two, "imagesTr", "a_0000.nii.gz")]))[0].status, "present");
  for (const root of [one, two]) await Deno.remove(root, { recursive: true });
});

Deno.test("preprocess: bad inputs are named", async () => {
  const root = await folder();
  await Deno.mkdir(join(root, "empty"));
  await assertRejects(() => findInputs([join(root, "none")]), UserError, "no such file");
  await assertRejects(
    () => findInputs([join(root, "empty")]),
    UserError,
    "there is no",
  );
  assertEquals((await findInputs([], [join(root, "none.nii")])).length, 1);
  await assertRejects(
    () => StoreWriter.open(join(root, "imagesTr", "a_0000.nii.gz")),
    UserError,
    "this is a file",
  );
  const store = join(root, "store");
  await go(store, [root]);
  const writer = await StoreWriter.open(store);
  await assertRejects(
    async () => await preprocess(writer, await findInputs([root]), "amaes").next(),
    UserError,
    "recipe onemmiso",
  );
  const page = storeReport(writer.all());
  assert(page.includes("b_0000.nii.gz") && page.includes("2 volumes stored"));
  await Deno.remove(root, { recursive: true });
});
