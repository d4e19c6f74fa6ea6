/** Options of a method: a schema with the paper's defaults, and the values that a run gives them. */
import { oneOf, UsageError } from "../errors.ts";
import type { Kind } from "../nn/network.ts";

/** What `--option NAME=VALUE`, a configuration file and run.json hold. */
export type OptionValue = number | string | boolean;

/** One option. The type of its default is its type. */
export interface Option {
  readonly default: OptionValue;
  /** The default on token networks, where it is another. */
  readonly token?: OptionValue;
  readonly help: string;
  /** Of a string: the words it may be. */
  readonly choices?: readonly string[];
  /** Of a number: its bounds, both allowed. */
  readonly min?: number;
  readonly max?: number;
  /** Of a number: whole numbers only. */
  readonly whole?: boolean;
  /** The kind of network that has it; absent: both. */
  readonly networks?: Kind;
}

/** Options by name. */
export type Schema = Readonly<Record<string, Option>>;

type Widened<V> = V extends number ? number : V extends boolean ? boolean : string;

/** Values of a schema: a union of its words where an option has choices. */
export type Values<S extends Schema> = {
  readonly [K in keyof S]: S[K] extends { readonly choices: readonly (infer C)[] } ? C
    : Widened<S[K]["default"]>;
};

/** `value` (text of the command line, or from JSON) as the option wants it. @throws a sentence's end otherwise */
function read(option: Option, value: unknown): OptionValue {
  switch (typeof option.default) {
    case "number": {
      const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
      const { min = -Infinity, max = Infinity, whole = false } = option;
      const fits = typeof number === "number" && Number.isFinite(number) && number >= min && number <= max &&
        (!whole || Number.isInteger(number));
      if (fits) return number;
      const from = min === -Infinity ? "" : ` from ${min}`;
      throw `it must be a ${whole ? "whole " : ""}number${from}${max === Infinity ? "" : ` to ${max}`}`;
    }
    case "boolean":
      if (value === true || value === "true") return true;
      if (value === false || value === "false") return false;
      throw "it must be true or false";
    default: {
      const text = typeof value === "number" ? String(value) : value;
      if (typeof text !== "string") throw "it must be text";
      if (!option.choices || option.choices.includes(text)) return text;
      throw oneOf(text, option.choices);
    }
  }
}

/**
 * The options of a run: `given` checked, the rest as the paper has them on this kind of network.
 * @param method name for the error text
 * @throws UsageError naming an unknown option (and the nearest one), or a value out of its range
 */
export function fillOptions(
  method: string,
  schema: Schema,
  kind: Kind,
  given: Readonly<Record<string, unknown>>,
): Record<string, OptionValue> {
  const offered = Object.entries(schema).filter(([, o]) => (o.networks ?? kind) === kind);
  const names = offered.map(([name]) => name);
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    const hint = name in schema
      ? `not on a ${kind === "cnn" ? "CNN" : "token network"} (${names.join(", ")})`
      : names.length
      ? oneOf(name, names)
      : "it has none";
    throw new UsageError(`--option ${name}: ${method} has no such option; ${hint}`);
  }
  return Object.fromEntries(offered.map(([name, option]) => {
    if (!(name in given)) {
      return [name, kind === "token" && option.token !== undefined ? option.token : option.default];
    }
    try {
      return [name, read(option, given[name])];
    } catch (why) {
      if (typeof why !== "string") throw why;
      throw new UsageError(`--option ${name} of ${method} is ${JSON.stringify(given[name])}; ${why}`);
    }
  }));
}

/** The name and the text of `NAME=VALUE`. @throws UsageError without a name or an equals sign */
export function splitOption(text: string): [name: string, value: string] {
  const at = text.indexOf("=");
  if (at < 1) {
    throw new UsageError(`--option is "${text}"; write it as NAME=VALUE, such as --option ratio=0.6`);
  }
  return [text.slice(0, at), text.slice(at + 1)];
}
