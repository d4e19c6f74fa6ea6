/** Metrics of image tasks beside scikit-learn (fixtures/make_image_metrics.py), and their tables on disk. */
import { assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { formatPredictions, readPredictions, readTargets } from "../../lib/data/targets.ts";
import { UserError } from "../../lib/errors.ts";
import { scoreImages } from "../../lib/eval/evaluate.ts";
import { auroc, classificationMetrics, regressionMetrics } from "../../lib/eval/image_metrics.ts";

const fixture = JSON.parse(
  await Deno.readTextFile(new URL("../../fixtures/image_metrics.json", import.meta.url)),
);

function equal(got: Record<string, number | null>, want: Record<string, number>): void {
  for (const [name, value] of Object.entries(got)) assertAlmostEquals(value!, want[name], 1e-9, name);
}

Deno.test("image metrics: equal scikit-learn's, with ties and four classes", () => {
  for (const want of fixture.classification) {
    equal(classificationMetrics(want.probabilities, want.truth), want);
  }
  equal(regressionMetrics(fixture.regression.predicted, fixture.regression.truth), fixture.regression);
});

Deno.test("image metrics: undefined where a fold lacks a class or varies in nothing", () => {
  assertEquals(auroc([0.2, 0.9], [true, true]), null);
  const { AUROC, macro_AP, balanced_accuracy } = classificationMetrics([[0.2, 0.8], [0.4, 0.6]], [1, 1]);
  assertEquals([AUROC, macro_AP, balanced_accuracy], [null, null, 1]);
  assertEquals(regressionMetrics([3], [4]), { MAE: 1, RMSE: 1, R2: null, correlation: null });
});

Deno.test("image tables: predictions come back as written and are scored; what is wrong is named with its line", async () => {
  const folder = await Deno.makeTempDir();
  const at = (name: string, text: string) => {
    Deno.writeTextFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const cases = new Map([["a", [0.25, 0.75]], ["b", [0.5, 0.5]]]);
  const file = at("predictions.csv", formatPredictions({ task: "classification", labels: [0, 1], cases }));
  assertEquals(readPredictions(file), { task: "classification", labels: [0, 1], cases });
  at("labels.csv", "case,label\nb,0\na,1\nc,1\n");
  const { metrics, unpredicted } = await scoreImages(file, folder);
  assertEquals([metrics.accuracy, metrics.AUROC, unpredicted], [1, 1, ["c"]]);
  const ages = at("ages.csv", "case,value\na,61.5\n");
  assertEquals(readPredictions(ages).task, "regression");
  for (
    const [text, says] of [
      ["case,label\na,x\n", 'labels.csv:2: label of case "a" is "x"'],
      ["case,label\na,1\na,0\n", 'labels.csv:3: case "a" is there twice'],
      ["id,label\na,1\n", "labels.csv:1: the header is"],
      ["case,label\na,1.5\n", "whole numbers from 0"],
      ["case,label\n", "there is no case in it"],
    ]
  ) {
    const table = at("labels.csv", text);
    assertThrows(() => readTargets(table, "classification"), UserError, says);
  }
  at("labels.csv", "case,label\na,2\nb,0\n");
  await assertRejects(() => scoreImages(file, folder), UserError, "no column p_2");
  await Deno.remove(folder, { recursive: true });
});
