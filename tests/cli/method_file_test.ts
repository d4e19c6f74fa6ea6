/** A method in a user's own file: the example of docs/methods.md, through the launcher's grants, from another folder. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { parse } from "../../lib/config.ts";
import { StoreWriter } from "../../lib/data/store.ts";
import { LIBRARY } from "../../lib/native/library.ts";
import { command, extraGrants } from "../../scripts/pretrain.ts";

const root = fromFileUrl(new URL("../../", import.meta.url));
const run = Deno.permissions.querySync({ name: "run", command: Deno.execPath() });
const ignore = run.state !== "granted" || Deno.build.os === "windows";

Deno.test({
  name:
    "pretrain --method FILE: the documented example trains; its options are checked; a file without a method is refused",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const at = (name: string) => join(folder, name);
    const writer = await StoreWriter.open(at("store"));
    const affine = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
    const bits = Uint16Array.from({ length: 64000 }, (_, i) => (i * 7 + (i >> 5) * 977) % 15000);
    const line = { id: "one", source: "one.nii.gz", status: "stored" as const, reason: "", affine };
    writer.put({ ...line, shape: [40, 40, 40], array: StoreWriter.arrayOf("one") }, bits);
    const [, example] = (await Deno.readTextFile(join(root, "docs/methods.md"))).match(
      /```ts\n([\s\S]*?)```/,
    )!;
    await Deno.writeTextFile(at("mine.ts"), example);
    await Deno.writeTextFile(at("empty.ts"), "export const other = 1;\n");

    const start = async (file: string, ...more: string[]) => {
      const args = [
        "store",
        "--method",
        file,
        "--arch",
        "resenc-s",
        "--patch",
        "32",
        "--steps",
        "2",
        "-o",
        "run",
        ...more,
      ];
      const extra = extraGrants(parse(command, args));
      assertEquals(extra.read, [file]);
      const read = [root, at("store"), at("run"), ...extra.read.map((path) => join(folder, path))];
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        cwd: folder,
        args: [
          ...["run", "--no-prompt", "--config", join(root, "deno.json"), `--allow-read=${read.join(",")}`],
          ...[`--allow-write=${at("run")},${at("run.partial")}`, `--allow-ffi=${LIBRARY}`],
          ...[join(root, "scripts/pretrain.ts"), ...args],
        ],
      }).output();
      return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
    };
    const trained = await start("./mine.ts", "--option", "ratio=0.5");
    assertEquals(trained.code, 0, trained.err);
    const { config } = JSON.parse(await Deno.readTextFile(at("run/run.json")));
    assertEquals([config.method, config.options.ratio, config.options.cell], ["mine", 0.5, 8]);
    assert(JSON.parse(trained.out.trim().split("\n").at(-1)!).loss > 0);
    const wrong = await start("./mine.ts", "--option", "ration=0.5");
    assertEquals(wrong.code, 2);
    assertStringIncludes(wrong.err, 'mine has no such option; did you mean "ratio"?');
    const empty = await start("./empty.ts");
    assertEquals(empty.code, 1);
    assertStringIncludes(empty.err, "export const method");
    await Deno.remove(folder, { recursive: true });
  },
});
