import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { UserError } from "../lib/errors.ts";
import { exists, readJson, readLine, writeWhole } from "../lib/files.ts";

Deno.test("files: whole or not at all; damaged ones are named", async () => {
  const root = await Deno.makeTempDir();
  const file = join(root, "a.json");
  assertEquals(await exists(file), false);
  await writeWhole(file, '{"a": 1}');
  assertEquals([await exists(file), await readJson(file)], [true, { a: 1 }]);
  await Deno.mkdir(join(root, "folder"));
  await assertRejects(() => writeWhole(join(root, "folder"), "x"));
  assertEquals([...Deno.readDirSync(root)].map((e) => e.name).sort(), ["a.json", "folder"]);
  await Deno.writeTextFile(file, '{"a":');
  await assertRejects(() => readJson(file), UserError, "a.json: this is no whole JSON file");
  assertEquals(readLine("m.jsonl", '{"loss": 2}', 0), { loss: 2 });
  assertThrows(() => readLine("m.jsonl", '{"lo', 4), UserError, "m.jsonl:5: this is no whole JSON line");
  await Deno.remove(root, { recursive: true });
});
