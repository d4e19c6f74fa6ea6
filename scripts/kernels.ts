/** Compiles every CUDA kernel for sm_80 and sm_90a, without a GPU. See `deno task kernels --help`. */
import { dirname, fromFileUrl, join } from "@std/path";
import { type Arguments, type Command, type Grants, log, run, writeLine } from "../lib/config.ts";
import { UserError } from "../lib/errors.ts";
import { planted, SERIALIZED } from "../lib/gpu/bugs.ts";
import { type Budget, budgets, type Compiled, faults, kernelNames } from "../lib/gpu/gate.ts";
import { runTool } from "../lib/gpu/tools.ts";

const NATIVE = join(dirname(dirname(fromFileUrl(import.meta.url))), "native");
const ARCHITECTURES = ["sm_80", "sm_90a"];
const BUILD = join(NATIVE, "target", "shim");
const BUGGED = join(BUILD, "serialized.cu");

export const command: Command = {
  name: "kernels",
  summary:
    "Compiles the CUDA kernels and holds their registers against the budgets; the last line is the summary.",
  positionals: [],
  flags: {
    compiler: {
      type: "string",
      default: "any",
      choices: ["any", "nvcc", "nvrtc"],
      help: "nvcc on PATH or in the Python wheels, else NVRTC in the wheels",
    },
    python: { type: "string", default: "python3", help: "the Python that has the wheels" },
  },
};

/** Python looks for the compilers and starts them: only it may be started. A kernel with a bug is written. */
export function extraGrants({ flags }: Arguments): Grants {
  return { read: [], write: [BUILD], run: [flags.python] };
}

async function main({ flags }: Arguments): Promise<number> {
  const budget = new Map<string, Budget>();
  const expected = new Set<string>();
  const files: string[] = [];
  for (const { name } of Deno.readDirSync(join(NATIVE, "src", "ops"))) {
    const file = join(NATIVE, "src", "ops", name, "kernel.cu");
    let source: string;
    try {
      source = await Deno.readTextFile(file);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) continue;
      throw error;
    }
    files.push(file);
    for (const [kernel, needs] of budgets(source)) budget.set(kernel, needs);
    for (const kernel of kernelNames(source)) expected.add(kernel);
  }
  await Deno.mkdir(BUILD, { recursive: true });
  const sound = await Deno.readTextFile(join(NATIVE, "src", "ops", SERIALIZED.op, "kernel.cu"));
  await Deno.writeTextFile(BUGGED, planted(SERIALIZED, sound));
  const shim = join(NATIVE, "shim");
  const line = [
    join(shim, "compile.py"),
    flags.compiler,
    shim,
    ARCHITECTURES.join(","),
    ...files.sort(),
    BUGGED,
  ];
  let outcome;
  try {
    outcome = await runTool(flags.python, line);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable)) throw error;
    throw new UserError(
      `--python ${flags.python}: it does not start; name a python3, which looks for the CUDA compiler`,
    );
  }
  if (!outcome.ok) throw new UserError(outcome.text.trim().split("\n").at(-1) ?? "compile.py failed");
  const rows = outcome.text.trim().split("\n").map((text) => JSON.parse(text));
  const { compiler } = rows.shift();
  writeLine({ compiler });
  const wrong: string[] = [];
  const seen = new Set<string>();
  let heard = false;
  for (const row of rows) {
    if (row.file === BUGGED) {
      heard ||= row.notes?.some((note: string) => note.includes("are serialized"));
      continue;
    }
    if (row.error) {
      log(row.error);
      wrong.push(`${row.file.slice(NATIVE.length + 1)} does not compile for ${row.architecture}`);
      continue;
    }
    const { kernel, architecture, registers, stack, spills } = row as Compiled;
    seen.add(`${kernel} ${architecture}`);
    writeLine({ kernel, architecture, registers, spills, stack, budget: budget.get(kernel) ?? null });
    wrong.push(...faults(row, budget.get(kernel)));
  }
  for (const kernel of expected) {
    for (const architecture of ARCHITECTURES) {
      if (!seen.has(`${kernel} ${architecture}`)) wrong.push(`${kernel} (${architecture}) was not compiled`);
    }
  }
  if (/ 1[3-9]\./.test(compiler)) {
    writeLine({ bug: SERIALIZED.name, op: SERIALIZED.op, caught: heard });
    if (!heard) wrong.push(`the compiler's note on ${SERIALIZED.op} with "${SERIALIZED.name}" is not heard`);
  }
  for (const fault of wrong) log(`kernels: ${fault}`);
  if (wrong.length) {
    throw new UserError(`${wrong.length} fault(s) in the CUDA kernels, the first: ${wrong[0]}`);
  }
  writeLine({ kernels: expected.size, spills: 0, architectures: ARCHITECTURES });
  return 0;
}

if (import.meta.main) await run(command, main);
