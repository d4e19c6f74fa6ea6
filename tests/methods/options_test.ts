import { assertEquals, assertThrows } from "@std/assert";
import { parse } from "../../lib/config.ts";
import { UsageError } from "../../lib/errors.ts";
import { readCompat } from "../../lib/methods/compat.ts";
import { fillOptions, type Schema, splitOption } from "../../lib/methods/options.ts";
import { methods } from "../../lib/methods/registry.ts";

const schema: Schema = {
  ratio: { default: 0.75, min: 0, max: 1, help: "" },
  cell: { default: 16, token: 8, min: 1, whole: true, help: "" },
  loss: { default: "mse", choices: ["mse", "huber"], help: "" },
  sparse: { default: true, networks: "cnn", help: "" },
};

Deno.test("options: defaults by kind of network, text becomes the default's type", () => {
  assertEquals(fillOptions("m", schema, "cnn", {}), { ratio: 0.75, cell: 16, loss: "mse", sparse: true });
  assertEquals(fillOptions("m", schema, "token", {}), { ratio: 0.75, cell: 8, loss: "mse" });
  const given = { ratio: "0.6", cell: "4", loss: "huber", sparse: "false" };
  assertEquals(fillOptions("m", schema, "cnn", given), { ratio: 0.6, cell: 4, loss: "huber", sparse: false });
});

Deno.test("options: unknown names and bad values are refused with the name, the value and the fix", () => {
  const refuse = (given: Record<string, unknown>, kind: "cnn" | "token", text: string) =>
    assertThrows(() => fillOptions("m", schema, kind, given), UsageError, text);
  refuse({ ratoi: 1 }, "cnn", 'm has no such option; did you mean "ratio"?');
  refuse({ sparse: true }, "token", "not on a token network");
  refuse({ ratio: "1.5" }, "cnn", "must be a number from 0 to 1");
  refuse({ ratio: "" }, "cnn", "must be a number from 0 to 1");
  refuse({ cell: 1.5 }, "cnn", "must be a whole number from 1");
  refuse({ loss: "hubr" }, "cnn", 'did you mean "huber"?');
  refuse({ sparse: "maybe" }, "cnn", "true or false");
  assertEquals(splitOption("a=b=c"), ["a", "b=c"]);
  assertThrows(() => splitOption("cell"), UsageError, "NAME=VALUE");
});

Deno.test("options: every method's defaults are values that it takes", () => {
  for (const { name, options, networks } of methods) {
    for (const kind of networks ? [networks] : ["cnn", "token"] as const) {
      const defaults = fillOptions(name, options, kind, {});
      assertEquals(fillOptions(name, options, kind, defaults), defaults);
    }
  }
});

Deno.test("compat: known switches in a fixed order, unknown and idle ones refused", () => {
  const offered = ["nnssl-align-axes", "nnssl-align-corners"] as const;
  assertEquals(readCompat(["nnssl-align-corners", "nnssl-align-axes"], "cva", offered), [...offered]);
  assertThrows(() => readCompat(["nnssl-axes"], "cva", offered), UsageError, "nnssl-align-axes");
  assertThrows(() => readCompat(["nnssl-align-axes"], "mae"), UsageError, "changes nothing in mae");
});

Deno.test("flags that repeat: each is kept, in order; none is an empty list", () => {
  const flags = { option: { type: "string", repeat: true, help: "" } } as const;
  const command = { name: "c", summary: "", positionals: [], flags };
  assertEquals(parse(command, ["--option", "a=1", "--option=b=2"]).flags.option, ["a=1", "b=2"]);
  assertEquals(parse(command, []).flags.option, []);
  assertThrows(() => parse(command, ["--option"]), UsageError, "needs a value");
});
