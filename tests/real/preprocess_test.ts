import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { findInputs } from "../../lib/data/inputs.ts";
import { preprocess } from "../../lib/data/preprocess.ts";
import { StoreWriter } from "../../lib/data/store.ts";

const DATA = fromFileUrl(new URL("../../../shared/data", import.meta.url));

function absent(): boolean {
  try {
    return !Deno.statSync(`${DATA}/odd`).isDirectory;
  } catch {
    console.log(`skipped: ${DATA} is absent`);
    return true;
  }
}

Deno.test({
  name: "real odd files: what should load is stored, what should not is refused",
  ignore: absent(),
  async fn() {
    const store = await Deno.makeTempDir();
    const writer = await StoreWriter.open(store);
    const of = { stored: [] as string[], refused: [] as string[], present: [] as string[] };
    for await (const outcome of preprocess(writer, await findInputs([`${DATA}/odd`]), "onemmiso")) {
      of[outcome.status].push(outcome.source.slice(DATA.length + 5));
    }
    // Notes of MANIFEST.tsv on files made to be accepted or refused; labels are images here.
    for (const row of (await Deno.readTextFile(`${DATA}/MANIFEST.tsv`)).split("\n")) {
      const columns = row.split("\t");
      const name = columns[0].replace("odd/", "");
      const verdict = columns.at(-1)!.split(":")[0];
      if (name.includes("label_")) continue;
      if (verdict === "ACCEPT") assertEquals(of.stored.includes(name), true, `${name} should be stored`);
      if (verdict === "REFUSE") assertEquals(of.refused.includes(name), true, `${name} should be refused`);
    }
    const count = (folder: string, status: keyof typeof of) =>
      of[status].filter((n) => n.startsWith(folder)).length;
    assertEquals([count("orientation", "stored"), count("orientation", "refused")], [27, 0]);
    assertEquals([count("byte-order", "stored"), count("broken", "stored"), count("values", "stored")], [
      5,
      0,
      0,
    ]);
    const volumes = writer.all().filter((line) => line.id.startsWith("orientation"));
    for (const line of volumes) {
      assertEquals([line.shape, line.statistics], [volumes[0].shape, volumes[0].statistics], line.id);
    }
    await Deno.remove(store, { recursive: true });
  },
});
