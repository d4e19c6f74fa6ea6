/** `bench` as a user runs it: JSON lines with numbers, a table, bad names refused. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { LIBRARY } from "../../lib/native/library.ts";

const script = fromFileUrl(new URL("../../scripts/bench.ts", import.meta.url));
const ignore = Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state !== "granted";

async function bench(folder: string, args: string[]) {
  const flags = [`--allow-read=${folder}`, `--allow-write=${folder}`, `--allow-ffi=${LIBRARY}`];
  const line = ["run", "--no-prompt", ...flags, script, "-o", folder, ...args];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: line }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, lines: text(stdout).trim().split("\n").filter(Boolean), stderr: text(stderr) };
}

Deno.test({
  name: "bench: a line per case, bench.jsonl and bench.md, nothing else stays",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const { code, lines } = await bench(folder, [
        "--only",
        "step,rank",
        "--arch",
        "resenc-s",
        "--methods",
        "mae",
        "--patch",
        "32",
        "--rounds",
        "1",
      ]);
      assertEquals(code, 0);
      const rows = lines.map((line) => JSON.parse(line));
      assertEquals(rows.slice(1).map((row) => row.group), ["step", "rank"]);
      for (const row of rows.slice(1)) assert(row.seconds > 0 && row.rate > 0 && row.peak_gflops > 0);
      assertEquals([...Deno.readDirSync(folder)].map((e) => e.name).sort(), ["bench.jsonl", "bench.md"]);
      assertMatch(await Deno.readTextFile(join(folder, "bench.md")), /\| mae resenc-s 32\^3 batch 1 f32 \|/);
      const wrong = await bench(folder, ["--only", "ranks"]);
      assertEquals(wrong.code, 2);
      assertMatch(wrong.stderr, /did you mean "rank"/);
      const before = await Deno.readTextFile(join(folder, "bench.jsonl"));
      for (
        const [args, words] of [
          [["--methods", "foo"], /--methods names "foo"; it must be one of/],
          [["--arch", "resenc-s", "--patch", "33"], /--patch 33x33x33 does not fit/],
          [["--arch", "resenc-s", "--methods", "simmim"], /no method of --methods simmim runs/],
        ] as const
      ) {
        const refused = await bench(folder, ["--only", "step", ...args]);
        assertEquals([refused.code, refused.lines], [2, []]);
        assertMatch(refused.stderr, words);
      }
      assertEquals(await Deno.readTextFile(join(folder, "bench.jsonl")), before);
      assertEquals([...Deno.readDirSync(folder)].length, 2);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
