import { assertEquals, assertThrows } from "@std/assert";
import { type Command, parse } from "../lib/config.ts";
import { UsageError } from "../lib/errors.ts";

const command: Command = {
  name: "probe",
  summary: "Takes every kind of flag.",
  positionals: [{ name: "IN", help: "input", optional: true, variadic: true }],
  flags: {
    out: { type: "string", short: "o", help: "folder" },
    count: { type: "integer", min: 1, help: "how many" },
    size: { type: "integer", min: 16, max: 512, default: 64, help: "voxels" },
    shift: { type: "number", help: "any number" },
    task: { type: "string", choices: ["segmentation", "regression"], help: "what it does" },
    option: { type: "string", repeat: true, help: "NAME=VALUE" },
    strict: { type: "boolean", help: "refuse" },
  },
};

Deno.test("config: every spelling of a flag and its value", () => {
  for (const args of [["-o", "x"], ["-ox"], ["-o=x"], ["--out", "x"], ["--out=x"]]) {
    const { flags, positionals, given } = parse(command, ["a", ...args, "b"]);
    assertEquals([flags.out, positionals, [...given]], ["x", ["a", "b"], ["out"]], args.join(" "));
  }
  const { flags, positionals, given } = parse(command, [
    "--shift",
    "-3",
    "--out",
    "-",
    "-",
    "--option",
    "a=b=c",
    "--option=d=-1",
    "--strict",
    "1.0",
    "--",
    "--count",
  ]);
  assertEquals(flags, {
    out: "-",
    count: undefined,
    size: 64,
    shift: -3,
    task: undefined,
    option: ["a=b=c", "d=-1"],
    strict: true,
  });
  assertEquals(positionals, ["-", "1.0", "--count"]);
  assertEquals(given, new Set(["out", "shift", "option", "strict"]));
  assertEquals(parse(command, ["--shift=-.5"]).flags.shift, -0.5);
  assertEquals(parse(command, ["--strict=false"]).flags.strict, false);
});

Deno.test("config: a wrong argument is named with its value and the way out", () => {
  for (
    const [args, words] of [
      [["--count", "-3"], '--count is "-3"; it must be a whole number of at least 1'],
      [["--size", "1e9"], "a whole number of at least 16 and at most 512"],
      [["--shift", "x"], '--shift is "x"; it must be a number'],
      [["--out"], "--out needs a value (folder)"],
      [["--out", "--strict"], "--out needs a value (folder)"],
      [["-o", "--strict"], "--out needs a value (folder)"],
      [["--out="], "--out needs a value (folder)"],
      [["--option"], "--option needs a value"],
      [["--count", "1", "--count", "2"], "--count is given 2 times; give it once"],
      [["-o", "a", "--out=b"], "--out is given 2 times"],
      [["--task", "seg"], '--task is "seg"; did you mean "segmentation"? (segmentation, regression)'],
      [["--task", "foo"], '--task is "foo"; it must be one of segmentation, regression'],
      [["--cuont", "3"], "unknown flag --cuont; did you mean --count? (--help lists all)"],
      [["-3"], "unknown flag -3 (--help lists all)"],
      [["-x"], "unknown flag -x (--help lists all)"],
      [["--constructor", "1"], "unknown flag --constructor"],
    ] as const
  ) assertThrows(() => parse(command, [...args]), UsageError, words);
});
