import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname, fromFileUrl, join } from "@std/path";
import { libraryPath, libraryState, listedPaths, permission, testCounts } from "../../lib/launch.ts";

const ROOT = dirname(dirname(dirname(fromFileUrl(import.meta.url))));

/** Needs leave to start deno, which `deno task test` gives. */
const ignore = Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state !== "granted";

/** A script that tells what it may do; `--wait` holds until a signal comes. */
const PROBE = `
import { type Arguments, type Command, run, writeLine } from "../lib/config.ts";
export const command: Command = {
  name: "probe", summary: "Tells what it may do.",
  positionals: [{ name: "IN", help: "input", access: "read", optional: true, variadic: true }],
  flags: {
    out: { type: "string", short: "o", help: "output", access: "write" },
    code: { type: "integer", help: "exit code", default: 0 },
    wait: { type: "boolean", help: "wait for a signal" },
    touch: { type: "string", help: "a path that is not declared" },
  },
};
export const extraGrants = (_: Arguments) => ({ read: [], write: ["extra"] });
async function main({ positionals, flags }: Arguments) {
  const state = (name: Deno.PermissionName, path?: string) =>
    Deno.permissions.querySync((path ? { name, path } : { name }) as Deno.PermissionDescriptor).state;
  for (const path of positionals) if (path !== "-") Deno.readTextFileSync(path);
  if (flags.out) Deno.writeTextFileSync(flags.out, "x");
  if (flags.touch) Deno.writeTextFileSync(flags.touch, "x");
  writeLine({ cwd: Deno.realPathSync("."), all: ["read", "write", "ffi", "net", "run", "env"].map((n) => state(n as Deno.PermissionName)),
    extra: state("write", "extra") });
  if (positionals.includes("-")) for (const path of (await new Response(Deno.stdin.readable).text()).trim().split("\\n")) Deno.readTextFileSync(path);
  if (flags.wait) await new Promise<void>((done) => Deno.addSignalListener("SIGTERM", () => done()));
  if (flags.wait) return 7;
  return flags.code;
}
if (import.meta.main) await run(command, main);
`;

/** A copy of the program with the probe as its only script and an empty file as its library. */
async function tree(): Promise<string> {
  const root = await Deno.realPath(await Deno.makeTempDir({ prefix: "voxalign" }));
  for (
    const path of [
      "deno.json",
      "deno.lock",
      "lib/config.ts",
      "lib/errors.ts",
      "lib/launch.ts",
      "scripts/launch.ts",
    ]
  ) {
    await Deno.mkdir(dirname(join(root, path)), { recursive: true });
    await Deno.copyFile(join(ROOT, path), join(root, path));
  }
  await Deno.mkdir(join(root, "types"));
  await Deno.copyFile(join(ROOT, "types/std.d.ts"), join(root, "types/std.d.ts"));
  await Deno.writeTextFile(join(root, "scripts/probe.ts"), PROBE);
  await Deno.mkdir(dirname(libraryPath(root)), { recursive: true });
  await Deno.writeTextFile(libraryPath(root), "");
  await Deno.mkdir(join(root, "user"));
  return root;
}

function launcher(root: string, args: string[], env: Record<string, string> = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--allow-read",
      "--allow-run",
      "--allow-env",
      join(root, "scripts/launch.ts"),
      ...args,
    ],
    cwd: root,
    env: { INIT_CWD: join(root, "user"), NO_COLOR: "1", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
}

async function launch(root: string, args: string[], input = "", env: Record<string, string> = {}) {
  const child = launcher(root, args, env).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

Deno.test("launch: grants follow the command line, paths are the user's", { ignore }, async () => {
  const root = await tree();
  await Deno.writeTextFile(join(root, "user/in.txt"), "hi");
  const good = await launch(root, ["probe", "in.txt", "-o", "out.txt", "--code", "5"]);
  assertEquals(good.code, 5, good.err);
  const told = JSON.parse(good.out);
  assertEquals(told.cwd, join(root, "user"));
  assert(!told.all.includes("granted"), `no bare permission: ${told.all}`);
  assertEquals(told.extra, "granted");
  assertEquals(await Deno.readTextFile(join(root, "user/out.txt")), "x");

  const outside = await Deno.makeTempDir();
  const denied = await launch(root, ["probe", "--touch", join(outside, "no.txt")]);
  assertEquals(denied.code, 1);
  assertStringIncludes(denied.err, "--allow-write");
  assertEquals(denied.err.trim().split("\n").length, 1);

  await Deno.writeTextFile(join(outside, "in.txt"), "hi");
  const read = await launch(root, ["probe", "--touch", "in.txt"]);
  assertEquals(read.code, 1, "a flag without access grants nothing");

  await Deno.mkdir(join(outside, "a,b"));
  await Deno.writeTextFile(join(outside, "a,b/in.txt"), "hi");
  const comma = await launch(root, [
    "probe",
    join(outside, "a,b/in.txt"),
    "-o",
    join(outside, "a,b/out.txt"),
  ]);
  assertEquals(comma.code, 0, comma.err);
  assertStringIncludes(comma.err, "holds a comma");
  await Deno.remove(outside, { recursive: true });
  await Deno.remove(root, { recursive: true });
});

Deno.test("launch: help, usage errors, unknown names, missing library", { ignore }, async () => {
  const root = await tree();
  const help = await launch(root, ["probe", "--help"]);
  assertEquals(help.code, 0);
  assertStringIncludes(help.out, "deno task probe");
  for (
    const [args, words] of [[["probe", "--cod", "1"], "--code"], [["prob"], '"probe"'], [[
      "probe",
      "--code",
      "x",
    ], "whole number"]] as const
  ) {
    const wrong = await launch(root, [...args]);
    assertEquals(wrong.code, 2);
    assertStringIncludes(wrong.err, words);
    assertEquals(wrong.err.trim().split("\n").length, 1);
  }
  await Deno.remove(libraryPath(root));
  const deno = dirname(Deno.execPath());
  const missing = await launch(root, ["probe"], "", { PATH: deno });
  assertEquals(missing.code, 1);
  assertMatch(missing.err, /native library .* (missing|does not build)/);
  await Deno.remove(root, { recursive: true });
});

Deno.test("launch: paths on standard input are granted and handed on", { ignore }, async () => {
  const root = await tree();
  await Deno.rename(join(root, "scripts/probe.ts"), join(root, "scripts/preprocess.ts"));
  const outside = await Deno.makeTempDir();
  await Deno.writeTextFile(join(outside, "in.txt"), "hi");
  const listed = await launch(root, ["preprocess", "-"], `${join(outside, "in.txt")}\n`);
  assertEquals(listed.code, 0, listed.err);
  const denied = await launch(root, ["preprocess", "-"], "");
  assertEquals(denied.code, 1, "nothing listed, nothing granted");
  await Deno.remove(outside, { recursive: true });
  await Deno.remove(root, { recursive: true });
});

Deno.test({
  name: "launch: SIGTERM reaches the script, its exit code comes back",
  ignore: ignore || Deno.build.os === "windows",
  fn: async () => {
    const root = await tree();
    const child = launcher(root, ["probe", "--wait"]).spawn();
    await child.stdin.close();
    const reader = child.stdout.getReader();
    await reader.read();
    await new Promise((done) => setTimeout(done, 100));
    child.kill("SIGTERM");
    assertEquals((await child.status).code, 7);
    await reader.cancel();
    await child.stderr.cancel();
    await Deno.remove(root, { recursive: true });
  },
});

Deno.test("launch test: the last line counts, the exit code stays", { ignore }, async () => {
  const root = await tree();
  await Deno.mkdir(join(root, "tests"));
  const body = `Deno.test("D01 a", () => {}); Deno.test("D02 b", () => { throw new Error("no"); });`;
  await Deno.writeTextFile(join(root, "tests/a_test.ts"), body);
  const both = await launch(root, ["test"]);
  assertEquals(both.code, 1);
  assertEquals(both.out.trimEnd().split("\n").at(-1), "1 passed, 1 failed");
  const one = await launch(root, ["test", "--filter", "/\\bD01\\b/"]);
  assertEquals(one.code, 0, one.err);
  assertEquals(one.out.trimEnd().split("\n").at(-1), "1 passed, 0 failed");
  await Deno.remove(root, { recursive: true });
});

Deno.test("launch: the library is current, stale or missing", async () => {
  const root = await tree();
  await Deno.mkdir(join(root, "native/src/ops"), { recursive: true });
  await Deno.writeTextFile(join(root, "native/src/ops/a.rs"), "");
  await Deno.utime(join(root, "native/src/ops/a.rs"), 100, 100);
  assertEquals(libraryState(root), "current");
  await Deno.utime(libraryPath(root), 50, 50);
  assertEquals(libraryState(root), "stale");
  await Deno.remove(libraryPath(root));
  assertEquals(libraryState(root), "missing");
  await Deno.remove(root, { recursive: true });
});

Deno.test("launch: permission flags, path lists, test summaries", () => {
  assertEquals(permission("read", [], "/w"), []);
  assertEquals(permission("read", ["a", "/b", "a"], "/w"), ["--allow-read=/w/a,/b"]);
  const many = Array.from({ length: 9000 }, (_, i) => `/data/folder/case_${i}.nii.gz`);
  assertEquals(permission("read", many, "/w"), ["--allow-read=/data/folder"]);
  assertEquals(listedPaths(new TextEncoder().encode("a\r\n\nb c\n")), ["a", "b c"]);
  assertEquals(testCounts("FAILED | 3 passed (2 steps) | 1 failed | 2 ignored (1ms)"), {
    passed: 3,
    failed: 1,
  });
  assertEquals(testCounts("\x1b[32mok\x1b[0m | 12 passed | 0 failed \x1b[2m(1ms)\x1b[0m"), {
    passed: 12,
    failed: 0,
  });
  assertEquals(testCounts("error"), { passed: 0, failed: 0 });
});

Deno.test("launch: --help of every script", { ignore }, async () => {
  for (const { name } of Deno.readDirSync(join(ROOT, "scripts"))) {
    if (name === "launch.ts") continue;
    const { code, out, err } = await launch(ROOT, [name.replace(".ts", ""), "--help"]);
    assertEquals(code, 0, `${name}: ${err}`);
    assertStringIncludes(out, `deno task ${name.replace(".ts", "")}`);
  }
});
