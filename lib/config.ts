/**
 * The command line of a script, declared once: parsing, `--help` and the sandbox grants all follow from it.
 */
import { parseArgs } from "@std/cli/parse-args";
import { explain, nearest, oneOf, UsageError } from "./errors.ts";

/** One `--flag`. `access` says that its value is a path that the script reads or writes. */
export interface Flag {
  type: "string" | "number" | "integer" | "boolean";
  help: string;
  default?: string | number | boolean;
  choices?: readonly string[];
  short?: string;
  access?: "read" | "write";
  /** The path that is granted where the flag is not given. */
  fallback?: string;
  min?: number;
  max?: number;
  /** It may be given any number of times: its value is a list. */
  repeat?: boolean;
}

/** One positional argument. `-` (standard input) is let through and needs no grant. */
export interface Positional {
  name: string;
  help: string;
  access?: "read" | "write";
  optional?: boolean;
  variadic?: boolean;
}

/** A script as seen from the shell. */
export interface Command {
  name: string;
  summary: string;
  positionals: readonly Positional[];
  flags: Record<string, Flag>;
}

/** Parsed arguments: positionals in order, flags by name (absent without a default: undefined). */
export interface Arguments {
  positionals: string[];
  // deno-lint-ignore no-explicit-any
  flags: Record<string, any>;
  /** Flags that stand on the command line. */
  given: Set<string>;
}

/** The arguments with every flag and its value as one `--name=value`, which leaves the parser nothing to guess. */
function spelled({ flags }: Command, args: string[]): string[] {
  const out: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === "--") return [...out, ...args.slice(i)];
    const [, letter, glued] = arg.match(/^-([a-zA-Z])=?(.*)$/s) ?? [];
    const name = letter === undefined
      ? arg.startsWith("--") ? arg.slice(2) : ""
      : Object.keys(flags).find((n) => flags[n].short === letter) ?? "";
    if (!Object.hasOwn(flags, name) || flags[name].type === "boolean") out.push(arg);
    else if (glued) out.push(`--${name}=${glued}`);
    else {
      // The next argument is the value unless it is a flag: `-` is standard input, `-3` a number.
      const valued = args[i + 1] !== undefined && /^(?!-)|^-$|^-[.\d]/.test(args[i + 1]);
      out.push(`--${name}=${valued ? args[++i] : ""}`);
    }
  }
  return out;
}

/** The value of one flag from its text. @throws UsageError naming the flag, its value and the fix */
function readValue(command: string, name: string, flag: Flag, text: string): string | number {
  const wrong = (why: string): never => {
    throw new UsageError(`${command}: --${name} ${why}`);
  };
  if (text === "") wrong(`needs a value (${flag.help})`);
  if (flag.choices && !flag.choices.includes(text)) wrong(`is "${text}"; ${oneOf(text, flag.choices)}`);
  if (flag.type === "string") return text;
  const value = Number(text);
  const { min = -Infinity, max = Infinity } = flag;
  const whole = flag.type === "integer";
  if (!Number.isFinite(value) || (whole && !Number.isInteger(value)) || value < min || value > max) {
    const bound = (min === -Infinity ? "" : ` of at least ${min}`) +
      (max === Infinity ? "" : `${min === -Infinity ? " of" : " and"} at most ${max}`);
    wrong(`is "${text}"; it must be a ${whole ? "whole " : ""}number${bound}`);
  }
  return value;
}

/** Parses `args` by `command`. @throws UsageError naming the argument, its value and the fix. */
export function parse(command: Command, args: string[]): Arguments {
  const names = Object.keys(command.flags);
  const parsed = parseArgs(spelled(command, args), {
    string: [...names.filter((n) => command.flags[n].type !== "boolean"), "_"],
    boolean: names.filter((n) => command.flags[n].type === "boolean"),
    collect: names,
    unknown: (arg, key) => {
      if (key === undefined || arg === "-") return true;
      const guess = nearest(key, names);
      throw new UsageError(
        `${command.name}: unknown flag ${arg}${guess ? `; did you mean --${guess}?` : ""} (--help lists all)`,
      );
    },
  });
  const flags: Arguments["flags"] = {};
  const given = new Set<string>();
  for (const name of names) {
    const flag = command.flags[name];
    const found = parsed[name] as (string | boolean)[];
    if (found.length) given.add(name);
    if (found.length > 1 && !flag.repeat && flag.type !== "boolean") {
      throw new UsageError(`${command.name}: --${name} is given ${found.length} times; give it once`);
    }
    const values = found.map((value) =>
      flag.type === "boolean" ? value === true : readValue(command.name, name, flag, String(value))
    );
    flags[name] = flag.repeat ? values : values.at(-1) ?? flag.default;
  }
  const positionals = parsed._.map(String);
  const needed = command.positionals.filter((p) => !p.optional);
  if (positionals.length < needed.length) {
    const missing = needed[positionals.length];
    throw new UsageError(`${command.name}: ${missing.name} is missing (${missing.help}); see --help`);
  }
  if (!command.positionals.some((p) => p.variadic) && positionals.length > command.positionals.length) {
    throw new UsageError(
      `${command.name}: unexpected argument "${positionals[command.positionals.length]}"; see --help`,
    );
  }
  return { positionals, flags, given };
}

/** The text of `--help`. */
export function help(command: Command): string {
  const shape = (p: Positional) => (p.optional ? `[${p.name}]` : p.name) + (p.variadic ? "..." : "");
  const rows: [string, string][] = command.positionals.map((p) => [shape(p), p.help]);
  for (const [name, flag] of Object.entries(command.flags)) {
    const more = flag.repeat ? "..." : "";
    const value = flag.type === "boolean"
      ? ""
      : ` ${flag.choices?.join("|") ?? flag.type.toUpperCase()}${more}`;
    const fallback = flag.default === undefined || flag.type === "boolean"
      ? ""
      : ` (default ${flag.default})`;
    rows.push([`${flag.short ? `-${flag.short}, ` : ""}--${name}${value}`, flag.help + fallback]);
  }
  const body = rows.map(([left, right]) =>
    left.length < 32 ? `  ${left.padEnd(32)}${right}` : `  ${left}\n  ${" ".repeat(32)}${right}`
  );
  return [
    `deno task ${command.name} ${command.positionals.map(shape).join(" ")} [flags]`,
    "",
    command.summary,
    "",
    ...body,
  ].join("\n");
}

/** Paths that a script may read and write, programs that it may start, and libraries beside our own. */
export interface Grants {
  read: string[];
  write: string[];
  run?: string[];
  ffi?: string[];
}

/** Which paths a command line reads and which it writes. */
export function grants(command: Command, args: Arguments): Grants {
  const read: string[] = [];
  const write: string[] = [];
  const add = (access: "read" | "write" | undefined, path: unknown) => {
    if (typeof path !== "string" || path === "-" || !access) return;
    read.push(path);
    if (access === "write") {
      read.push(`${path}.partial`); // a rename reads its source
      write.push(path, `${path}.partial`);
    }
  };
  args.positionals.forEach((path, i) => {
    const p = command.positionals[Math.min(i, command.positionals.length - 1)];
    const last = command.positionals.findIndex((q) => q.variadic);
    add((last >= 0 && i >= last ? command.positionals[last] : p)?.access, path);
  });
  for (const [name, flag] of Object.entries(command.flags)) {
    add(flag.access, args.flags[name] ?? flag.fallback);
  }
  return { read, write };
}

/** Writes one JSON line to standard output; a closed pipe ends the script quietly. */
export function writeLine(value: unknown): void {
  const bytes = new TextEncoder().encode(JSON.stringify(value) + "\n");
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0);
    throw error;
  }
}

/** Progress and log go to standard error. */
export function log(text: string): void {
  try {
    Deno.stderr.writeSync(new TextEncoder().encode(text + "\n"));
  } catch { /* standard error is closed: nobody reads the log */ }
}

/** Runs a script: parse, `--help`, `main`, and one sentence with the right exit code when something is wrong. */
export async function run(
  command: Command,
  main: (args: Arguments) => Promise<number | void>,
): Promise<never> {
  try {
    if (Deno.args.includes("--help") || Deno.args.includes("-h")) {
      console.log(help(command));
      Deno.exit(0);
    }
    Deno.exit((await main(parse(command, Deno.args))) ?? 0);
  } catch (error) {
    const { message, exitCode } = explain(error);
    log(
      `${message.startsWith(`${command.name}:`) ? "" : `${command.name}: `}${message.replaceAll("\n", " ")}`,
    );
    Deno.exit(exitCode);
  }
}
