/** Metrics of image tasks over the cases of a fold (definitions of scikit-learn). */

/** Areas and precisions need both classes: null where a fold lacks one. */
type Value = number | null;

/** Share of (positive, negative) pairs in which the positive has the larger score; ties count half. */
export function auroc(scores: number[], positive: boolean[]): Value {
  const order = scores.map((_, i) => i).sort((a, b) => scores[a] - scores[b]);
  const positives = positive.filter(Boolean).length;
  const negatives = positive.length - positives;
  if (!positives || !negatives) return null;
  let [wins, below] = [0, 0];
  for (let i = 0; i < order.length;) {
    let [p, n] = [0, 0];
    const score = scores[order[i]];
    for (; i < order.length && scores[order[i]] === score; i++) positive[order[i]] ? p++ : n++;
    wins += p * (below + n / 2);
    below += n;
  }
  return wins / (positives * negatives);
}

/** Sum over falling thresholds of (recall gained) * precision; equal scores are one step, nothing is interpolated. */
function averagePrecision(scores: number[], positive: boolean[]): Value {
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
  const positives = positive.filter(Boolean).length;
  if (!positives) return null;
  let [hits, sum] = [0, 0];
  for (let i = 0; i < order.length;) {
    const before = hits;
    const score = scores[order[i]];
    for (; i < order.length && scores[order[i]] === score; i++) if (positive[order[i]]) hits++;
    sum += (hits - before) * hits / i;
  }
  return sum / positives;
}

const mean = (values: Value[]): Value =>
  values.some((v) => v === null) || !values.length ? null : values.reduce((a, b) => a! + b!)! / values.length;

/**
 * Of a classifier: accuracy; balanced_accuracy, the mean recall of the classes that occur; AUROC, one against the rest,
 * averaged (the plain one for two classes); AP of the second class of two, or averaged; macro_AP, averaged in any case
 * (what torchmetrics gives and the SSL3D results report).
 * @param probabilities `[case][class]`; the class of a case is that of its largest one
 * @param truth class per case
 */
export function classificationMetrics(probabilities: number[][], truth: number[]): Record<string, Value> {
  const classes = probabilities[0].length;
  const predicted = probabilities.map((row) => row.indexOf(Math.max(...row)));
  const right = predicted.map((k, i) => Number(k === truth[i]));
  const every = Array.from({ length: classes }, (_, k) => k);
  const recalls = every.flatMap((k) => {
    const own = right.filter((_, i) => truth[i] === k);
    return own.length ? [mean(own)] : [];
  });
  const areas = every.map((k) => auroc(probabilities.map((p) => p[k]), truth.map((t) => t === k)));
  const precisions = every.map((k) =>
    averagePrecision(probabilities.map((p) => p[k]), truth.map((t) => t === k))
  );
  return {
    accuracy: mean(right),
    balanced_accuracy: mean(recalls),
    AUROC: classes === 2 ? areas[1] : mean(areas),
    AP: classes === 2 ? precisions[1] : mean(precisions),
    macro_AP: mean(precisions),
  };
}

/** Of a regression: MAE and RMSE in the units of the target, R2 and Pearson's correlation (null where undefined). */
export function regressionMetrics(predicted: number[], truth: number[]): Record<string, Value> {
  const errors = predicted.map((y, i) => y - truth[i]);
  const square = mean(errors.map((e) => e * e))!;
  const about = (values: number[]) => values.map((v) => v - mean(values)!);
  const [p, t] = [about(predicted), about(truth)];
  const dot = (a: number[], b: number[]) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  const [tt, pp] = [dot(t, t), dot(p, p)];
  return {
    MAE: mean(errors.map(Math.abs)),
    RMSE: Math.sqrt(square),
    R2: tt ? 1 - square * truth.length / tt : null,
    correlation: tt && pp ? dot(p, t) / Math.sqrt(tt * pp) : null,
  };
}

/**
 * Metrics over some cases of what `ImageModel.predict` gives.
 * @param labels class values in the order of the probabilities; empty in a regression
 * @param truth label or value per case
 */
export function imageMetrics(
  labels: number[],
  predicted: number[][],
  truth: number[],
): Record<string, Value> {
  return labels.length
    ? classificationMetrics(predicted, truth.map((label) => labels.indexOf(label)))
    : regressionMetrics(predicted.map(([value]) => value), truth);
}
