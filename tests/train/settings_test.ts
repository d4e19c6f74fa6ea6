import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { parse } from "../../lib/config.ts";
import { UserError } from "../../lib/errors.ts";
import { withConfig } from "../../lib/train/settings.ts";
import { command } from "../../scripts/pretrain.ts";

Deno.test("config file: fills what the command line leaves open; a run.json serves; errors name file and key", async () => {
  const folder = await Deno.makeTempDir();
  const file = join(folder, "mine.json");
  const read = async (json: unknown, ...args: string[]) => {
    await Deno.writeTextFile(file, typeof json === "string" ? json : JSON.stringify(json));
    return (await withConfig(command, parse(command, ["store", "--config", file, ...args]))).flags;
  };
  const json = {
    method: "s3d",
    patch: [64, 64, 64],
    steps: 7,
    options: { cell: 16, low: 0.5 },
    recipe: "x",
    data: "x",
  };
  const flags = await read({ config: json, format: 1 }, "--steps", "9", "--option", "low=0.7");
  assertEquals([flags.method, flags.patch, flags.steps, flags.batch], ["s3d", "64", 9, 2]);
  assertEquals(flags.option, ["cell=16", "low=0.5", "low=0.7"]);
  assertEquals((await read({ patch: [32, 64, 64] })).patch, "32x64x64");
  const refuse = async (json: unknown, text: string) => {
    const error = await assertRejects(() => read(json), UserError, text);
    assertEquals((error as unknown as Error).message.startsWith(file), true);
  };
  await refuse({ metod: "mae" }, 'it holds "metod"; did you mean "method"?');
  await refuse({ out: "runs" }, '"out"');
  await refuse({ options: 3 }, "options is 3");
  await refuse({ steps: "many" }, '--steps is "many"');
  await refuse({ config: { pairs: 3 } }, "add --pairs");
  await refuse("{", "not JSON");
  await refuse("[]", "an object");
  await Deno.remove(folder, { recursive: true });
});
