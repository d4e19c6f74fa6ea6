/** `preprocess` as a user runs it: what its exit code says of refused files. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { writeNifti } from "../../lib/data/nifti.ts";
import { LIBRARY } from "../../lib/native/library.ts";

const script = fromFileUrl(new URL("../../scripts/preprocess.ts", import.meta.url));
const ignore = Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state !== "granted";

Deno.test({
  name: "preprocess: refused files cost no exit code, but with --strict",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const at = (name: string) => join(folder, name);
    const eye = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
    const data = Float32Array.from({ length: 60 }, (_, i) => i % 17 + 1);
    await Deno.writeFile(at("good.nii.gz"), await writeNifti({ shape: [3, 4, 5], data, affine: eye }));
    await Deno.writeTextFile(at("bad.nii"), "x");
    const go = async (args: string[]) => {
      const flags = [`--allow-read=${folder}`, `--allow-write=${folder}`, `--allow-ffi=${LIBRARY}`];
      const line = ["run", "--no-prompt", ...flags, script, ...args, "-o", at("store")];
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: line }).output();
      const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
      return { code, lines: text(stdout).trim().split("\n").length, stderr: text(stderr) };
    };
    try {
      const none = await go([at("bad.nii")]);
      assertEquals([none.code, none.lines], [0, 1]);
      assertStringIncludes(none.stderr, "0 stored, 0 present, 1 refused");
      const both = await go([at("bad.nii"), at("good.nii.gz")]);
      assertEquals([both.code, both.lines], [0, 2], both.stderr);
      assertEquals((await go([at("bad.nii"), at("good.nii.gz"), "--strict"])).code, 1);
      assertEquals((await go([at("good.nii.gz"), "--shard", "3/2"])).code, 2);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "preprocess: stopped by a signal it ends with 143, and the same command goes on",
  ignore: ignore || Deno.build.os === "windows",
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const eye = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
      const data = Float32Array.from({ length: 64 ** 3 }, (_, i) => i % 17 + 1);
      const bytes = await writeNifti({ shape: [64, 64, 64], data, affine: eye });
      for (let i = 0; i < 40; i++) await Deno.writeFile(join(folder, `v${i}.nii.gz`), bytes);
      const store = join(folder, "store");
      const flags = [`--allow-read=${folder}`, `--allow-write=${folder}`, `--allow-ffi=${LIBRARY}`];
      const args = ["run", "--no-prompt", ...flags, script, folder, "-o", store];
      const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "piped" }).spawn();
      const reader = child.stdout.getReader();
      await reader.read(); // the first volume is stored
      child.kill("SIGTERM");
      while (!(await reader.read()).done) { /* what was under way */ }
      const [stderr, status] = await Promise.all([new Response(child.stderr).text(), child.status]);
      assertEquals(status.code, 143, stderr);
      assertStringIncludes(stderr, "the same command goes on");
      const again = await new Deno.Command(Deno.execPath(), { args }).output();
      assertEquals(again.code, 0);
      const lines = new TextDecoder().decode(again.stdout).trim().split("\n").map((line) => JSON.parse(line));
      assertEquals([lines.length, lines[0].status], [40, "present"]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
