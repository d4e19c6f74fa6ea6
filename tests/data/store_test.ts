import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { type IndexLine, Store, type StoredVolume, StoreWriter } from "../../lib/data/store.ts";
import { crc32c } from "../../lib/data/crc32c.ts";
import { standsWhole } from "../../lib/data/zarr.ts";
import { UserError } from "../../lib/errors.ts";

const EYE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];

function volume(id: string, shape: [number, number, number]): IndexLine & StoredVolume {
  return {
    id,
    source: `${id}.nii`,
    status: "stored",
    reason: "",
    array: StoreWriter.arrayOf(id),
    shape,
    affine: EYE,
  };
}

function values(shape: number[]): Float16Array {
  return Float16Array.from({ length: shape[0] * shape[1] * shape[2] }, (_, i) => (i % 4001) / 16 - 100);
}

async function make(...shapes: [number, number, number][]): Promise<string> {
  const path = await Deno.makeTempDir();
  const writer = await StoreWriter.open(path);
  for (const [i, shape] of shapes.entries()) {
    await writer.put(volume(`v${i}`, shape), new Uint16Array(values(shape).buffer));
  }
  return path;
}

async function refused(path: string, words: string): Promise<void> {
  await assertRejects(
    async () => {
      const store = await Store.open(path);
      await store.read(store.volumes[0].id);
    },
    UserError,
    words,
  );
}

Deno.test("crc32c of RFC 3720 B.4", () => {
  assertEquals(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assertEquals(crc32c(new TextEncoder().encode("123456789")), 0xe3069283);
});

Deno.test("store: what is written is read, chunks cut at the edge included", async () => {
  const shapes: [number, number, number][] = [[33, 40, 65], [1, 1, 3], [32, 32, 32]];
  const path = await make(...shapes);
  const store = await Store.open(path);
  assertEquals(store.volumes.map((v) => v.id), ["v0", "v1", "v2"]);
  for (const [i, shape] of shapes.entries()) {
    assertEquals(store.get(`v${i}`)!.shape, shape);
    assertEquals(await store.read(`v${i}`), new Float32Array(values(shape)));
  }
  await Deno.remove(path, { recursive: true });
});

Deno.test("store: the cache stays below its bytes", async () => {
  const path = await make([8, 8, 8], [8, 8, 8]);
  const store = await Store.open(path, 3000);
  const first = await store.read("v0");
  assertEquals(await store.read("v0") === first, true);
  await store.read("v1");
  assertEquals(await store.read("v0") === first, false);
  await Deno.remove(path, { recursive: true });
});

Deno.test("store: one line per id after a second run, a torn last line is not a line", async () => {
  const path = await make([4, 4, 4]);
  const index = join(path, "index.jsonl");
  await Deno.writeTextFile(index, '{"id": "to', { append: true });
  const writer = await StoreWriter.open(path);
  writer.append({ id: "v1", source: "v1.nii", status: "refused", reason: "the file is empty" });
  await writer.put({ ...volume("v1", [4, 4, 4]) }, new Uint16Array(64));
  await writer.compact();
  const rows = (await Deno.readTextFile(index)).trim().split("\n").map((row) => JSON.parse(row));
  assertEquals(rows.map((r) => [r.id, r.status]), [["v0", "stored"], ["v1", "stored"]]);
  await Deno.remove(path, { recursive: true });
});

Deno.test("store: a shard that is cut, gone or has another index is damaged, not zeros", async () => {
  const path = await make([33, 40, 65]);
  const shard = join(path, "volumes/v0/c/0/0/0");
  const whole = await Deno.readFile(shard);
  assertEquals(standsWhole(join(path, "volumes/v0"), [33, 40, 65]), true);
  for (const length of [0, 100, whole.length >> 1, whole.length - 1]) {
    await Deno.writeFile(shard, whole.subarray(0, length));
    await refused(path, `v0/c/0/0/0 is damaged (it has ${length} bytes instead of ${whole.length}); delete`);
    assertEquals(standsWhole(join(path, "volumes/v0"), [33, 40, 65]), false);
  }
  const turned = (at: number) => whole.map((byte, i) => i === whole.length + at ? byte ^ 1 : byte);
  const index = whole.slice(); // an entry of "no such chunk" with a checksum that fits
  index.fill(255, index.length - 20, index.length - 4);
  const start = index.length - 4 - 16 * 12;
  new DataView(index.buffer).setUint32(
    index.length - 4,
    crc32c(index.subarray(start, index.length - 4)),
    true,
  );
  for (const bytes of [turned(-1), turned(-4), turned(-12), index]) {
    await Deno.writeFile(shard, bytes);
    await refused(path, "v0/c/0/0/0 is damaged (its index does not fit");
  }
  await Deno.writeFile(shard, whole);
  await (await Store.open(path)).read("v0");
  await Deno.remove(shard);
  await refused(path, "is damaged (the file is missing)");
  await Deno.remove(join(path, "volumes/v0/zarr.json"));
  await refused(path, "is damaged (zarr.json is missing)");
  await Deno.remove(path, { recursive: true });
});

Deno.test("store: the hash tells other images, channels, recipes and affines apart; unknown recipes are refused", async () => {
  const path = await make([4, 4, 4]);
  const index = join(path, "index.jsonl");
  const line = {
    ...JSON.parse(await Deno.readTextFile(index)),
    sha256: "aa",
    channel: 0,
    recipe: "onemmiso",
  };
  const hashes = new Set<string>();
  const moved = EYE.map((row, i) => i ? row : [1, 0, 0, 5]);
  for (const other of [{}, { sha256: "ab" }, { channel: 1 }, { recipe: "amaes" }, { affine: moved }]) {
    await Deno.writeTextFile(index, JSON.stringify({ ...line, ...other }) + "\n");
    hashes.add(await (await Store.open(path)).hash());
  }
  assertEquals(hashes.size, 5);
  // Where the file lies does not matter.
  await Deno.writeTextFile(index, JSON.stringify({ ...line, source: "elsewhere.nii" }) + "\n");
  assertEquals(hashes.has(await (await Store.open(path)).hash()), true);
  await Deno.writeTextFile(index, JSON.stringify({ ...line, recipe: "onemmiso2" }) + "\n");
  await refused(path, 'has recipe "onemmiso2"; it must be one that this version knows (onemmiso, amaes)');
  await Deno.remove(path, { recursive: true });
});

Deno.test("store: refuses what is missing and what leads out", async () => {
  const path = await make([4, 4, 4]);
  const index = join(path, "index.jsonl");
  const line = JSON.parse(await Deno.readTextFile(index));
  await refused(join(path, "none"), "no such store");
  await refused(join(path, "volumes"), "no index.jsonl");
  for (const array of ["../x", "/etc/passwd", "volumes/../../x", ""]) {
    await Deno.writeTextFile(index, JSON.stringify({ ...line, array }) + "\n");
    await refused(path, "inside the store");
  }
  await Deno.rename(join(path, "volumes/v0"), join(path, "elsewhere"));
  await Deno.symlink(join(path, "elsewhere"), join(path, "volumes/v0"));
  await Deno.writeTextFile(index, JSON.stringify(line) + "\n");
  await refused(path, "is a link");
  await Deno.remove(join(path, "volumes/v0"));
  await refused(path, "is damaged");
  await Deno.writeTextFile(
    index,
    JSON.stringify({ id: "a", source: "a", status: "refused", reason: "cut" }) + "\n",
  );
  await refused(path, "no stored volume");
  await Deno.remove(path, { recursive: true });
});
