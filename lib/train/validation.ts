/** Scores of a fine-tuned model on the cases that it did not train on, in the form that `rank` reads. */
import type { Case } from "../data/cases.ts";
import { dice, overlaps } from "../eval/dice.ts";
import { imageMetrics } from "../eval/image_metrics.ts";
import { ImageModel } from "../eval/image_model.ts";
import type { ModelInfo } from "../eval/model.ts";
import { argmax, type Segmenter } from "../eval/segmenter.ts";
import type { Cases } from "./labelled.ts";
import { Countdown } from "./progress.ts";

/** One row; those of an image task are of the fold and have no case. `value` is null where it is not defined. */
export interface ScoreRow {
  method: string;
  arch: string;
  task: string;
  dataset: string;
  fold: number | "all";
  seed: number;
  case?: string;
  metric: string;
  label?: number;
  value: number | null;
}

const about = ({ method, arch, task, dataset, fold, seed }: ModelInfo) => ({
  method,
  arch,
  task,
  dataset,
  fold,
  seed,
});

/** DSC of a case per label, on the grid of its file, as `predict` would make it: with mirroring. Undefined when cancelled. */
async function scoreCase(model: Segmenter, of: Case): Promise<ScoreRow[] | undefined> {
  const { labels } = model.info;
  const logits = await model.logits(of, true);
  if (!logits) return undefined;
  const predicted = Uint16Array.from(argmax(logits, labels.length));
  const classes = labels.slice(1).map((_, k) => k + 1);
  const found = overlaps(Uint16Array.from(of.truth!), predicted, [...of.file.shape], classes);
  return found.map((overlap, i) => ({
    ...about(model.info),
    case: of.id,
    metric: "DSC",
    label: labels[i + 1],
    value: dice(overlap),
  }));
}

/** Predicts and scores `ids`. Undefined when cancelled. */
export async function validate(
  model: Segmenter | ImageModel,
  cases: Cases,
  ids: string[],
): Promise<ScoreRow[] | undefined> {
  const rows: ScoreRow[] = [];
  const predicted: number[][] = [];
  const left = new Countdown(ids.length);
  for (const [i, id] of ids.entries()) {
    const of = await cases.read(id);
    if (model instanceof ImageModel) {
      const found = await model.predict(of);
      if (!found) return undefined;
      predicted.push(found);
    } else {
      const found = await scoreCase(model, of);
      if (!found) return undefined;
      rows.push(...found);
    }
    left.show("validation", i + 1);
  }
  if (!(model instanceof ImageModel) || !ids.length) return rows;
  const truth = ids.map((id) => cases.dataset.targets!.get(id)!);
  const metrics = imageMetrics(model.info.labels, predicted, truth);
  return Object.entries(metrics).map(([metric, value]) => ({ ...about(model.info), metric, value }));
}

const mean = (values: number[]) => values.length ? values.reduce((a, b) => a + b) / values.length : null;

/** What the summary says: mean DSC per label over the cases that have one, and their mean; or the metrics of the fold. */
export function summary(rows: ScoreRow[], { task, labels, labelNames }: ModelInfo): Record<string, unknown> {
  if (task !== "segmentation") return Object.fromEntries(rows.map((row) => [row.metric, row.value]));
  const perLabel = labels.slice(1).map((label) =>
    mean(rows.flatMap((row) => row.label === label && row.value !== null ? [row.value] : []))
  );
  return {
    dsc: mean(perLabel.filter((v) => v !== null)),
    dsc_per_label: Object.fromEntries(labelNames.slice(1).map((name, i) => [name, perLabel[i]])),
  };
}
