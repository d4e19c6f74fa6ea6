/**
 * Starts a script with the grants that its own command line asks for: it reads the program and the named inputs, writes
 * the named outputs, loads our library, and nothing else. `deno task NAME ARGS` runs `launch.ts NAME ARGS`.
 */
import { dirname, fromFileUrl, join, resolve } from "@std/path";
import { type Arguments, type Command, type Grants, grants, help, log, parse } from "../lib/config.ts";
import { explain, oneOf, UsageError, UserError } from "../lib/errors.ts";
import { halvesOf, libraryPath, libraryState, listedPaths, permission, testCounts } from "../lib/launch.ts";

/** What a script exports for the launcher. */
interface Script {
  command: Command;
  /** Paths that do not stand on the command line, such as a default working folder. */
  extraGrants?(args: Arguments): Grants | Promise<Grants>;
}

const ROOT = dirname(dirname(fromFileUrl(import.meta.url)));
const LIBRARY = libraryPath(ROOT);
/** Scripts for which `-` means a list of paths on standard input: the paths are granted, then handed on. */
const PATHS_ON_STDIN = ["preprocess", "predict"];

const SIGNALS: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];

/** Environment for a child, and the folder of the user: `deno task` runs in the root and keeps it in INIT_CWD. */
const { INIT_CWD, ...env } = Deno.env.toObject();
const task = INIT_CWD !== undefined && resolve(Deno.cwd()) === resolve(ROOT);
const cwd = task ? INIT_CWD : Deno.cwd();

/** Builds the library when it is missing or older than its sources. Output of cargo goes to standard error. */
async function build(): Promise<void> {
  const state = libraryState(ROOT);
  if (state === "current") return;
  let status: Deno.CommandStatus;
  try {
    const args = ["build", "--release", "--manifest-path", join(ROOT, "native", "Cargo.toml")];
    const target = { CARGO_TARGET_DIR: join(ROOT, "native", "target") };
    status = await new Deno.Command("cargo", { args, env: target, stdout: "null", stderr: "inherit" })
      .output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    if (state === "stale") {
      return log("the native library is older than its sources; cargo is not on PATH to rebuild it");
    }
    throw new UserError(
      `the native library ${LIBRARY} is missing; install Rust (cargo is not on PATH) and run again`,
    );
  }
  if (!status.success) {
    throw new UserError(`the native library does not build (exit ${status.code}); cargo says why above`);
  }
}

/** Runs deno with `args`, hands SIGINT and SIGTERM on to it, and gives its status. */
async function deno(
  args: string[],
  cwd: string,
  input?: Uint8Array,
  output?: (chunk: Uint8Array) => void,
): Promise<Deno.CommandStatus> {
  const child = new Deno.Command(Deno.execPath(), {
    args,
    cwd,
    env,
    clearEnv: true,
    stdin: input ? "piped" : "inherit",
    stdout: output ? "piped" : "inherit",
    stderr: "inherit",
  }).spawn();
  let running = true;
  for (const signal of SIGNALS) Deno.addSignalListener(signal, () => running && child.kill(signal));
  const parent = Deno.ppid; // a killed `deno task` takes the script along
  if (task) setInterval(() => running && Deno.ppid !== parent && child.kill("SIGKILL"), 50);
  if (input) {
    const writer = child.stdin.getWriter();
    await writer.write(input).then(() => writer.close()).catch(() => {/* it reads no more */});
  }
  if (output) { for await (const chunk of child.stdout) output(chunk); }
  return await child.status.finally(() => running = false);
}

/** Runs the tests; the last line is `N passed, N failed`. */
async function test(args: string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log("deno task test [--filter TEXT|/PATTERN/] [FILES] ...: all arguments go to deno test");
    return 0;
  }
  await build();
  const grant = ["--allow-read", "--allow-write", `--allow-run=${Deno.execPath()}`];
  const ffi = permission("ffi", [LIBRARY], ROOT);
  const chosen = args.some((arg) => /^tests(\/|$)|\.ts$/.test(arg)) ? args : [...args, "tests"];
  let text = "";
  const line = ["test", "--no-prompt", ...grant, ...ffi, ...chosen];
  const status = await deno(line, ROOT, undefined, (chunk) => {
    Deno.stdout.writeSync(chunk);
    text += new TextDecoder().decode(chunk);
  });
  const { passed, failed } = testCounts(text);
  console.log(`${passed} passed, ${failed} failed`);
  return status.code;
}

/** Runs `scripts/NAME.ts` in its sandbox. @throws UsageError for an unknown name or a wrong argument. */
async function launch(name: string, args: string[]): Promise<number> {
  const path = join(ROOT, "scripts", `${name}.ts`);
  const files = [...Deno.readDirSync(join(ROOT, "scripts"))].map((entry) => entry.name);
  const names = files.filter((file) => file !== "launch.ts").map((file) => file.replace(/\.ts$/, ""));
  if (!names.includes(name)) {
    throw new UsageError(`launch: there is no script "${name}"; ${oneOf(name, names)}`);
  }
  const script: Script = await import(new URL(`${name}.ts`, import.meta.url).href);
  if (args.includes("--help") || args.includes("-h")) {
    console.log(help(script.command));
    return 0;
  }
  const parsed = parse(script.command, args);
  const named = grants(script.command, parsed);
  Deno.chdir(cwd); // relative paths are the user's
  const extra = await script.extraGrants?.(parsed) ?? { read: [], write: [], run: [] };
  let input: Uint8Array | undefined;
  const listed: string[] = [];
  if (PATHS_ON_STDIN.includes(name) && parsed.positionals.includes("-")) {
    input = new Uint8Array(await new Response(Deno.stdin.readable).arrayBuffer());
    listed.push(...listedPaths(input).flatMap((path) => halvesOf(path) as string[]));
  }
  await build();
  const flags = [
    ...permission("read", [ROOT, ...named.read, ...extra.read, ...extra.write, ...listed], cwd),
    ...permission("write", [...named.write, ...extra.write], cwd),
    ...permission("ffi", [LIBRARY, ...(extra.ffi ?? [])], cwd),
    ...(extra.run?.length ? [`--allow-run=${extra.run.join(",")}`] : []),
  ];
  const line = ["run", "--no-prompt", "--config", join(ROOT, "deno.json"), ...flags, path, ...args];
  const status = await deno(line, cwd, input);
  if (status.signal === "SIGKILL") {
    log(`${name}: killed by the system; perhaps the machine ran out of memory`);
  }
  return status.code;
}

if (import.meta.main) {
  const [name = "", ...args] = Deno.args;
  try {
    Deno.exit(name === "test" ? await test(args) : await launch(name, args));
  } catch (error) {
    const { message, exitCode } = explain(error);
    log(message);
    Deno.exit(exitCode);
  }
}
