/** `rank` as a user runs it: exactly the grants of its command line, files, summary, exit codes. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { grants, parse } from "../../lib/config.ts";
import { command } from "../../scripts/rank.ts";

const script = fromFileUrl(new URL("../../scripts/rank.ts", import.meta.url));
const ignore = Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state !== "granted";

async function rank(args: string[], input?: string) {
  const { read, write } = grants(command, parse(command, args));
  const flags = [
    read.length && `--allow-read=${read.join(",")}`,
    write.length && `--allow-write=${write.join(",")}`,
  ];
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...flags.filter((f) => typeof f === "string"), script, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input ?? ""));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, lines: text(stdout).trim().split("\n").filter(Boolean), stderr: text(stderr) };
}

const names = ["A", "B & B_2", "C"];
const rows = Array.from({ length: 24 }, (_, i) => {
  const [method, at] = [names[i % 3], Math.floor(i / 3)];
  const value = 0.5 + 0.03 * ((i * 7) % 11) + 0.02 * (i % 3);
  return JSON.stringify({ method, dataset: at < 4 ? "x" : "y", case: `c${at % 4}`, metric: "DSC", value });
});

Deno.test({
  name: "rank writes its report in its sandbox, and the bytes do not depend on the row order",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const path = join(folder, "rows.jsonl"), [a, b] = ["a", "b"].map((name) => join(folder, name));
    await Deno.writeTextFile(path, rows.join("\n"));
    const first = await rank([path, "-o", a, "--bootstrap", "50"]);
    assertEquals([first.code, first.lines.length], [0, 1]);
    const summary = JSON.parse(first.lines[0]);
    assertEquals([summary.rows, summary.tracks.length, summary.files.length], [24, 1, 5]);
    const turned = rows.map((_, i) => rows[(i * 5 + 3) % rows.length]).join("\n");
    assertEquals((await rank(["-", "-o", b, "--bootstrap", "50"], turned)).code, 0);
    const files = Array.from(Deno.readDirSync(a), (e) => e.name).sort();
    assertEquals(files, ["rank.json", "ranking.csv", "ranking.md", "ranking.tex", "report.html"]);
    for (const name of files) {
      assertEquals(await Deno.readTextFile(join(a, name)), await Deno.readTextFile(join(b, name)), name);
    }
    const page = await Deno.readTextFile(join(a, "report.html")),
      tex = await Deno.readTextFile(join(a, "ranking.tex"));
    assert(page.split("<svg").length > 6 && page.split("<table").length > 6 && !page.includes("NaN"));
    for (const word of ["\\toprule", "\\textbf", "\\underline", "B \\& B\\_2"]) {
      assert(tex.includes(word), word);
    }
    const track = JSON.parse(await Deno.readTextFile(join(a, "rank.json"))).tracks[0];
    for (const key of ["final", "columns", "tests", "bootstrap", "verdict"]) assert(key in track, key);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "rank refuses in one sentence and leaves nothing behind; --check fails on an impossible number",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const path = join(folder, "rows.csv"), out = join(folder, "out");
    const refused = async (text: string, args: string[], code: number, words: RegExp) => {
      await Deno.writeTextFile(path, text);
      const result = await rank([path, ...args]);
      assertEquals(result.code, code, result.stderr);
      assertMatch(result.stderr, words);
      assertEquals(result.stderr.trim().split("\n").length, 1);
    };
    const table = "dataset,A,B,C\nw,3,2,1\nx,3,2,1\ny,3,2,1\nz,3,1,2\n";
    await refused("", ["-o", out], 1, /there are no rows/);
    await refused("method,dataset,metric,value\nA,d,DSC,x\n", ["-o", out], 1, /rows\.csv:2: value is "x"/);
    await refused(
      table.replace("3,1,2", "3,,2"),
      ["-o", out, "--metric", "DSC"],
      1,
      /1 values are missing .*B on z.*--missing/,
    );
    await refused(table, ["--metric", "DSC"], 2, /-o DIR is missing/);
    await refused(table, ["-o", out, "--metric", "DSC", "--weights", "seg"], 2, /--weights has "seg"/);
    await refused(table, ["-o", out, "--metric", "DSC", "--resample", "cases"], 2, /--resample datasets/);
    await refused(
      table,
      ["-o", out, "--metric", "DSC", "--weights", "all=1", "--average", "metric"],
      2,
      /--average/,
    );
    assertEquals(Array.from(Deno.readDirSync(folder)).length, 1);
    const printed = join(folder, "printed.csv");
    await Deno.writeTextFile(printed, "track,group,method,rank\nall,overall,C,3.10\n");
    const check = await rank([path, "-o", out, "--metric", "DSC", "--audit", printed, "--check"]);
    assertEquals(check.code, 1);
    assertMatch(check.stderr, /1 printed ranks are impossible: C 3\.1/);
    await Deno.remove(folder, { recursive: true });
  },
});
