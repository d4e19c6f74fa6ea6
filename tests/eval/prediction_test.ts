import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { UserError } from "../../lib/errors.ts";
import { claim } from "../../lib/eval/prediction.ts";

Deno.test("prediction.json: a folder holds the predictions of one model, wherever its folder lies", async () => {
  const folder = await Deno.makeTempDir();
  const file = join(folder, "prediction.json");
  const about = { method: "cva", fold: 0, weights: "abc", model: "models/a", train: ["p0"] };
  await claim(folder, about, ["p1.nii.gz"]);
  const written = await Deno.readTextFile(file);
  assertEquals(JSON.parse(written), about);
  await Deno.writeTextFile(join(folder, "p1.nii.gz"), "");
  for (const change of [{ weights: "abd" }, { method: "mae" }, { fold: 1 }, { train: ["p0", "p2"] }]) {
    const other = () => claim(folder, { ...about, ...change, model: "models/b" }, ["p1.nii.gz"]);
    await assertRejects(other, UserError, `models/a, whose ${Object.keys(change)[0]} differs`);
  }
  assertEquals(await Deno.readTextFile(file), written);
  await claim(folder, { ...about, model: "/elsewhere/models/a" }, ["p1.nii.gz"]);
  await Deno.remove(file);
  await assertRejects(
    () => claim(folder, about, ["p0.nii.gz", "p1.nii.gz"]),
    UserError,
    "p1.nii.gz is there",
  );
  await claim(folder, about, ["p0.nii.gz"]);
  await Deno.remove(folder, { recursive: true });
});
