/** Runs every CUDA kernel on the host, without a GPU, and plants bugs that this has to find. See `deno task shim --help`. */
import { dirname, fromFileUrl, join } from "@std/path";
import { type Arguments, type Command, type Grants, log, run, writeLine } from "../lib/config.ts";
import { oneOf, UsageError, UserError } from "../lib/errors.ts";
import { BUGS, planted } from "../lib/gpu/bugs.ts";
import { kernelNames } from "../lib/gpu/gate.ts";
import { testCounts } from "../lib/launch.ts";
import { each, firstTool, runTool } from "../lib/gpu/tools.ts";

const NATIVE = join(dirname(dirname(fromFileUrl(import.meta.url))), "native");
const BUILD = join(NATIVE, "target", "shim");
const EMULATED = join(NATIVE, "target", "emulated", "libvoxalign.so");
const COMPILERS = ["g++", "clang++"];
const SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

export const command: Command = {
  name: "shim",
  summary:
    "Emulates the CUDA kernels on the host: five schedules, sanitizers, planted bugs, whole training steps; the last line is the summary.",
  positionals: [],
  flags: {
    op: { type: "string", help: "only this folder of native/src/ops, no planted bugs and no training steps" },
  },
};

/** A C++ program of the tests: which op, how it is compiled, and the kernel where it is not the one of the tree. */
interface Build {
  op: string;
  name: string;
  flags: string[];
  kernel?: string;
}

const OPS = [...Deno.readDirSync(join(NATIVE, "shim", "cases"))].map((file) => file.name.replace(".cpp", ""))
  .sort();
/** Kernels that are slow under sanitizers: all schedules without, then one per case with them. */
const SLOW = ["conv3d", "conv3d_stacked", "conv3d_weight", "conv3d_wide"];
const builds = (op: string): Build[] => {
  const sanitized = { op, name: `${op}-sanitized`, flags: SANITIZERS };
  if (!SLOW.includes(op)) return [sanitized];
  const flags = [...SANITIZERS, "-O1", "-DONE_SCHEDULE"];
  return [{ op, name: op, flags: ["-O2"] }, { ...sanitized, flags }];
};
const BUGGED: Build[] = BUGS.map((bug, i) => ({
  op: bug.op,
  name: `bug-${i}`,
  flags: ["-O1"],
  kernel: join(BUILD, `bug-${i}.cu`),
}));

/** The compiler, and the programs that it makes. */
export async function extraGrants(): Promise<Grants> {
  const compiler = await firstTool(COMPILERS);
  const programs = [...OPS.flatMap(builds), ...BUGGED].map((build) => join(BUILD, build.name));
  const tools = ["cargo", Deno.execPath()];
  return { read: [], write: [BUILD], run: [...(compiler ? [compiler] : []), ...tools, ...programs] };
}

/** Builds the library on the emulated card and runs whole training steps on it. @returns the tests that passed */
async function steps(): Promise<number> {
  const manifest = ["--manifest-path", join(NATIVE, "Cargo.toml")];
  const built = await runTool("cargo", ["build", "--profile", "emulated", "--features", "shim", ...manifest]);
  if (!built.ok) {
    log(built.text);
    throw new UserError("the library does not build with the emulated card; cargo says why above");
  }
  const grants = ["--no-prompt", "--allow-read", "--allow-write", `--allow-ffi=${EMULATED}`];
  const tests = join(dirname(NATIVE), "tests", "emulated");
  const ran = await runTool(Deno.execPath(), ["test", ...grants, tests]);
  log(ran.text);
  const { passed } = testCounts(ran.text);
  if (!ran.ok || !passed) {
    throw new UserError("training on the emulated card is not as on the CPU; the tests say where above");
  }
  return passed;
}

async function main({ flags }: Arguments): Promise<number> {
  if (flags.op && !OPS.includes(flags.op)) {
    throw new UsageError(`--op is "${flags.op}"; ${oneOf(flags.op, OPS)}`);
  }
  const compiler = await firstTool(COMPILERS);
  if (!compiler) {
    throw new UserError("no C++ compiler is on PATH; install g++ or clang++ with C++20 and run again");
  }
  await Deno.mkdir(BUILD, { recursive: true });
  const width = Math.max(1, navigator.hardwareConcurrency);
  const test = async (build: Build) => {
    const kernel = build.kernel ?? join(NATIVE, "src", "ops", build.op, "kernel.cu");
    const program = join(BUILD, build.name);
    const includes = ["-I", join(NATIVE, "shim"), `-DKERNEL="${kernel}"`];
    const warnings = ["-Wall", "-Wextra", "-Wno-unknown-pragmas"];
    const source = join(NATIVE, "shim", "cases", `${build.op}.cpp`);
    const built = await runTool(compiler, [
      "-std=c++20",
      ...build.flags,
      ...warnings,
      ...includes,
      "-o",
      program,
      source,
    ]);
    if (!built.ok) {
      log(built.text);
      throw new UserError(`${compiler} does not compile ${source}; it says why above`);
    }
    if (built.text) log(built.text);
    const ran = await runTool(program, []);
    return { ...ran, seconds: built.seconds + ran.seconds };
  };

  const kernels = new Set<string>();
  let failed = 0;
  const chosen = OPS.filter((op) => !flags.op || op === flags.op);
  await each(chosen.flatMap(builds), width, async (build) => {
    const { ok, text, seconds } = await test(build);
    const row = ok ? JSON.parse(text) : { op: build.op, failure: text.trim() };
    for (const kernel of row.kernels ?? []) kernels.add(kernel);
    if (!ok) failed++;
    writeLine({ ...row, build: build.name === build.op ? "plain" : "sanitized", ok, seconds });
  });
  for (const op of chosen) {
    const source = await Deno.readTextFile(join(NATIVE, "src", "ops", op, "kernel.cu"));
    const missed = kernelNames(source).filter((kernel) => !kernels.has(kernel));
    if (!failed && missed.length) {
      throw new UserError(`native/shim/cases/${op}.cpp runs no ${missed.join(", ")} of ops/${op}/kernel.cu`);
    }
  }
  if (failed) throw new UserError(`${failed} of the tests of kernels failed; the lines above say where`);
  const emulated = flags.op ? 0 : await steps();
  let caught = 0;
  if (!flags.op) {
    await each(BUGGED, width, async (build) => {
      const bug = BUGS[BUGGED.indexOf(build)];
      const source = await Deno.readTextFile(join(NATIVE, "src", "ops", bug.op, "kernel.cu"));
      await Deno.writeTextFile(build.kernel!, planted(bug, source));
      const { ok, text, seconds } = await test(build);
      if (!ok) caught++;
      writeLine({ bug: bug.name, op: bug.op, caught: !ok, by: ok ? null : text.trim(), seconds });
    });
  }
  writeLine({ kernels: kernels.size, schedules: 5, planted: flags.op ? 0 : BUGGED.length, caught, emulated });
  if (!flags.op && caught < BUGGED.length) {
    throw new UserError(`${BUGGED.length - caught} planted bugs were not found; the lines above name them`);
  }
  return 0;
}

if (import.meta.main) await run(command, main);
