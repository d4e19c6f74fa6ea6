import { assertEquals, assertStringIncludes } from "@std/assert";
import { dirname, fromFileUrl, join } from "@std/path";
import { resencS } from "../../lib/arch/resenc.ts";
import { writeFile } from "../../lib/data/safetensors.ts";
import { LIBRARY } from "../../lib/native/library.ts";
import { shapesOf } from "../../lib/weights/fit.ts";

const ROOT = dirname(dirname(dirname(fromFileUrl(import.meta.url))));
const ignore = Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state !== "granted";

/** Runs the script as the launcher does: it reads `folder` and the program, and writes `folder`. */
async function weights(folder: string, ...args: string[]) {
  const grant = [`--allow-read=${ROOT},${folder}`, `--allow-write=${folder}`, `--allow-ffi=${LIBRARY}`];
  const script = join(ROOT, "scripts", "weights.ts");
  const line = ["run", "--no-prompt", "--config", join(ROOT, "deno.json"), ...grant, script, ...args];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: line }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { code, out: text(stdout), errors: text(stderr).split("\n") };
}

Deno.test({
  name: "weights: import and export on the command line, in their sandbox; refusals leave nothing",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const file = join(folder, "encoder.safetensors");
      const encoder = [...shapesOf(resencS, 1, 1, {})].filter(([name]) => name.startsWith("encoder."));
      writeFile(
        file,
        new Map(encoder.map(([name, shape]) => [name, { shape, read: (into) => into.fill(0.5) }])),
      );
      const run = join(folder, "run");
      const imported = await weights(folder, "import", file, "-o", run);
      assertEquals(imported.code, 0, imported.errors.join("\n"));
      const report = JSON.parse(imported.out);
      assertEquals([report.arch, report.matched, report.missing, report.mismatched], ["resenc-s", 88, 32, 0]);
      assertStringIncludes(imported.errors[0], "resenc-s, 88 tensors matched");
      const exported = await weights(folder, "export", run, "-o", join(folder, "out.pth"));
      assertEquals(exported.code, 0, exported.errors.join("\n"));
      assertEquals([JSON.parse(exported.out).names, JSON.parse(exported.out).tensors], [352, 88]);

      const fixtures = join(ROOT, "fixtures", "weights");
      const cases: [number, string, string[]][] = [
        [1, "posix.system", ["import", join(fixtures, "evil.pth"), "-o", join(folder, "none")]],
        [1, "90 %", ["import", join(fixtures, "linear.pth"), "-o", join(folder, "none")]],
        [1, "--allow-write", ["import", file, "-o", "elsewhere"]],
        [1, "holds files already", ["import", file, "-o", run]],
        [1, "no such file", ["export", join(folder, "none"), "-o", join(folder, "none.pth")]],
        [2, "-o is missing", ["export", run]],
        [2, "import or export", ["convert", run, "-o", join(folder, "none")]],
        [2, "resenc-s", ["import", file, "--arch", "resenc-x", "-o", join(folder, "none")]],
      ];
      for (const [code, words, args] of cases) {
        const refused = await weights(folder, ...args);
        assertEquals(
          [refused.code, refused.out, refused.errors.length],
          [code, "", 1],
          refused.errors.join("\n"),
        );
        assertStringIncludes(refused.errors[0], words);
      }
      const left = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
      assertEquals(left, ["encoder.safetensors", "out.pth", "run"]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
