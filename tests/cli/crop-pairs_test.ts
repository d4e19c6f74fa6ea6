import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { dirname, fromFileUrl, join } from "@std/path";
import { StoreWriter } from "../../lib/data/store.ts";
import { LIBRARY } from "../../lib/native/library.ts";

const ROOT = dirname(dirname(dirname(fromFileUrl(import.meta.url))));
const ignore = Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state !== "granted";

async function makeStore(folder: string): Promise<string> {
  const path = join(folder, "store");
  const writer = await StoreWriter.open(path);
  for (const [id, side] of [["one", 40], ["two", 30]] as const) {
    const affine = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
    const shape: [number, number, number] = [side, side + 4, side];
    const bits = Uint16Array.from({ length: side * side * (side + 4) }, (_, i) => i % 15000);
    const line = { id, source: `${id}.nii.gz`, status: "stored" as const, reason: "", shape, affine };
    await writer.put({ ...line, array: StoreWriter.arrayOf(id) }, bits);
  }
  return path;
}

function start(args: string[], folder: string): Deno.ChildProcess {
  const grant = [`--allow-read=${ROOT},${folder}`, `--allow-write=${folder}`, `--allow-ffi=${LIBRARY}`];
  const script = join(ROOT, "scripts", "crop-pairs.ts");
  const line = ["run", "--no-prompt", "--config", join(ROOT, "deno.json"), ...grant, script, ...args];
  return new Deno.Command(Deno.execPath(), { args: line, stdout: "piped", stderr: "piped" }).spawn();
}

Deno.test({
  name: "crop-pairs: counted lines, a picture, the same lines without end until the pipe closes",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const store = await makeStore(folder);
      const picture = join(folder, "pairs.png");
      const args = [store, "--patch", "16", "--seed", "2"];
      const some = await start([...args, "--count", "3", "--picture", picture], folder).output();
      const text = new TextDecoder().decode(some.stdout);
      assertEquals(
        [some.code, text.trim().split("\n").length],
        [0, 3],
        new TextDecoder().decode(some.stderr),
      );
      assertEquals([...(await Deno.readFile(picture)).subarray(0, 4)], [137, 80, 78, 71]);
      const pair = JSON.parse(text.split("\n")[2]);
      assertEquals(Object.keys(pair).sort(), ["a", "b", "index", "overlap", "seed", "volume"]);
      assertEquals([pair.index, pair.seed], [2, 2]);

      const endless = start(args, folder);
      const reader = endless.stdout.getReader();
      let got = "";
      while (got.length < 200_000) got += new TextDecoder().decode((await reader.read()).value);
      await reader.cancel();
      const [errors, status] = await Promise.all([new Response(endless.stderr).text(), endless.status]);
      assertEquals([status.code, errors], [0, ""]);
      assert(got.startsWith(text));
      assert([...Deno.readDirSync(folder)].every((entry) => !entry.name.includes("partial")));

      const flat = await start([store, "--patch", "8x32x36", "--count", "20"], folder).output();
      const pairs = new TextDecoder().decode(flat.stdout).trim().split("\n").map((line) => JSON.parse(line));
      for (const { a: { box } } of pairs) {
        assertEquals([0, 1, 2].map((d) => box[d + 3] - box[d]), [8, 32, 36]);
      }
      assertEquals(
        new TextDecoder().decode(flat.stderr).startsWith(
          "crop-pairs: 1 of 2 volumes are smaller than the patch",
        ),
        true,
      );

      const none = await start([join(folder, "nowhere"), "--count", "1"], folder).output();
      assertEquals(none.code, 1);
      assertStringIncludes(new TextDecoder().decode(none.stderr), "nowhere");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
