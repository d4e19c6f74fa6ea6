/** A configuration file: the flags of a run as JSON, so that a run.json repeats its run. */
import { type Arguments, type Command, parse } from "../config.ts";
import { explain, oneOf, UsageError, UserError } from "../errors.ts";

/** Flags that a file may hold: none that names a path, for the sandbox follows from the command line. */
const KEYS = [
  "method",
  "arch",
  "patch",
  "batch",
  "steps",
  "seed",
  "lr",
  "cell",
  "option",
  "compat",
  "precision",
  "recompute",
  "device",
];

/** The flags in `config` as arguments. @throws a sentence about the key that is wrong */
function toArguments(config: Record<string, unknown>): string[] {
  return Object.entries(config).flatMap(([name, value]) => {
    // run.json: hashes of volumes and start weights, and how the volumes were prepared.
    if (["data", "from", "recipe", "pairs"].includes(name)) return [];
    const key = name === "options" ? "option" : name;
    if (!KEYS.includes(key)) {
      const known = ["options", ...KEYS.filter((k) => k !== "option")];
      throw `it holds "${name}"; ${oneOf(name, known)}`;
    }
    if (key === "option") {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw `options is ${JSON.stringify(value)}; it must be an object`;
      }
      return Object.entries(value).map(([option, v]) => `--option=${option}=${v}`);
    }
    if (key === "compat") return [value].flat().map((v) => `--compat=${v}`);
    if (key === "patch" && Array.isArray(value)) {
      return [`--patch=${new Set(value).size === 1 ? value[0] : value.join("x")}`];
    }
    if (key === "recompute" && typeof value === "boolean") return value ? ["--recompute"] : [];
    if (typeof value !== "string" && typeof value !== "number") {
      throw `${name} is ${JSON.stringify(value)}; it must be a number or text`;
    }
    return [`--${key}=${value}`];
  });
}

/**
 * The arguments with those of `--config FILE` filled in where the command line says nothing.
 * @throws UserError naming the file: no JSON object, an unknown key (and the nearest one), a bad value
 */
export async function withConfig(command: Command, args: Arguments): Promise<Arguments> {
  const file = args.flags.config;
  if (file === undefined) return args;
  let json: unknown;
  try {
    json = JSON.parse(await Deno.readTextFile(file));
  } catch (error) {
    if (error instanceof SyntaxError) throw new UserError(`${file}: it is not JSON (${error.message})`);
    throw new UserError(`--config ${explain(error).message}`);
  }
  const inner = (json as { config?: unknown } | null)?.config;
  const config = typeof inner === "object" ? inner : json; // a run.json keeps it one level down
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new UserError(
      `${file}: it must hold an object, such as {"method": "mae", "options": {"ratio": 0.6}}`,
    );
  }
  if ((config as { from?: unknown }).from !== undefined && args.flags.from === undefined) {
    throw new UserError(`${file}: that run started from other weights; add --from with their run folder`);
  }
  if ((config as { pairs?: unknown }).pairs !== undefined && args.flags.pairs === undefined) {
    throw new UserError(`${file}: that run took pairs of another seed; add --pairs with their file`);
  }
  try {
    const from = parse(command, toArguments(config as Record<string, unknown>));
    const flags = { ...args.flags };
    for (const name of from.given) if (!args.given.has(name)) flags[name] = from.flags[name];
    flags.option = [...from.flags.option, ...args.flags.option];
    return { ...args, flags, given: args.given.union(from.given) };
  } catch (why) {
    if (typeof why === "string") throw new UserError(`${file}: ${why}`);
    if (why instanceof UsageError) throw new UsageError(`${file}: ${why.message}`);
    throw why;
  }
}
