import { assert, assertEquals, assertRejects } from "@std/assert";
import { readNifti } from "../../lib/data/nifti.ts";
import { UserError } from "../../lib/errors.ts";
import { findLabels, type Origin, pairFiles, scoreCase } from "../../lib/eval/evaluate.ts";

const data = new URL("../../../shared/data/", import.meta.url);
let manifest = "";
try {
  manifest = Deno.readTextFileSync(new URL("MANIFEST.tsv", data));
} catch {
  console.log(`skipped: there is no ${data.pathname}`);
}

Deno.test({
  name: "real: odd NIfTI files are read or refused as their notes suggest",
  ignore: !manifest,
  fn: async () => {
    let seen = 0;
    for (const line of manifest.split("\n")) {
      const fields = line.split("\t");
      const [, verdict] = fields.at(-1)!.match(/^(ACCEPT|REFUSE|EITHER)/) ?? [];
      // Labels that do not fit their image are sound files.
      if (!verdict || (verdict === "REFUSE" && fields[0].includes("/label_"))) continue;
      seen++;
      const read = () => readNifti(Deno.readFileSync(new URL(fields[0], data)), fields[0]);
      if (verdict === "REFUSE") await assertRejects(read, UserError, fields[0]);
      else if (verdict === "ACCEPT") await read();
      else {
        const volume = await read().catch((error) => assert(error instanceof UserError, String(error)));
        if (volume) {
          assert(
            volume.affine.flat().every(Number.isFinite) && volume.data.every(Number.isFinite),
            fields[0],
          );
        }
      }
    }
    assert(seen > 30, `${seen} files with a note`);
  },
});

Deno.test({
  name: "real: labels against themselves score 1",
  ignore: !manifest,
  fn: async () => {
    const truth = new URL("hippocampus/labelsTr", data).pathname;
    const { pairs } = await pairFiles(truth, truth);
    const labels = await findLabels(truth, pairs);
    const origin: Origin = {
      method: "truth",
      arch: "none",
      task: "segmentation",
      dataset: "x",
      fold: 0,
      seed: 0,
    };
    for (const pair of pairs.slice(0, 5)) {
      const rows = await scoreCase(pair, labels, ["DSC", "NSD"], 1, origin);
      assertEquals(rows.map((row) => row.value), [1, 1, 1, 1]);
    }
  },
});
