/** Ranking schemes (reference: Maier-Hein et al. 2018): from values to column ranks to one order of the methods. */
import { UsageError } from "../errors.ts";
import type { Column, Competition, Missing } from "./columns.ts";
import { rank, rankAscending, type Ties } from "./ranks.ts";
import { bySize, holm, wilcoxon } from "./tests.ts";

export const SCHEMES = ["mean-then-rank", "median-then-rank", "rank-then-mean", "test-based"] as const;
export type Scheme = typeof SCHEMES[number];

export interface Settings {
  scheme: Scheme;
  ties: Ties;
  missing: Missing;
  /** Level of the top mean: columns count alike, or datasets, metrics, groups do. */
  average: "column" | "dataset" | "metric" | "group";
  weights: ReadonlyMap<string, number> | null;
  alpha: number;
  /** Holm over all ordered pairs inside the test-based scheme. */
  adjust: boolean;
}

/** Blocks of one unit after the missing policy: larger is better. `rows` are the blocks kept. */
export interface Blocks {
  rows: Uint32Array;
  values: Float64Array[];
  lost: number;
}

/** Applies the missing policy to `values` [blocks][k]; `rankwise` keeps gaps under `worst`, for ranks to absorb. */
export function resolve(
  values: readonly Float64Array[],
  direction: 1 | -1,
  metric: string,
  missing: Missing,
  rankwise: boolean,
): Blocks {
  const rows: number[] = [], out: Float64Array[] = [];
  let lost = 0;
  values.forEach((row, b) => {
    if (row.every(Number.isNaN)) return;
    const turned = row.map((v) => v * direction);
    if (turned.some(Number.isNaN)) {
      if (missing.kind === "complete") {
        lost++;
        return;
      }
      let fill = NaN;
      if (missing.kind === "worst" && !rankwise) fill = Math.min(...turned.filter((v) => !Number.isNaN(v)));
      if (missing.kind === "fill") {
        const given = missing.values.get(metric.toLowerCase()) ?? missing.values.get("*");
        if (given === undefined) {
          throw new UsageError(`rank: --missing fill gives no value for ${metric}; add ${metric}=VALUE`);
        }
        fill = given * direction;
      }
      for (let m = 0; m < turned.length; m++) if (Number.isNaN(turned[m])) turned[m] = fill;
    }
    rows.push(b);
    out.push(turned);
  });
  return { rows: Uint32Array.from(rows), values: out, lost };
}

/** Ranks of the methods on one unit; `counts` says how often each block was drawn (none: once each). */
export type Evaluate = (counts?: ArrayLike<number>) => Float64Array;

/** Summary of a method over its blocks, larger is better; the mean adds in block order. */
function summaries({ rows, values }: Blocks, k: number, median: boolean): Evaluate {
  if (median) {
    const orders = Array.from(
      { length: k },
      (_, m) =>
        Uint32Array.from(values.keys()).filter((b) => !Number.isNaN(values[b][m])).sort((a, b) =>
          values[a][m] - values[b][m]
        ),
    );
    return (counts) =>
      Float64Array.from(orders, (order, m) => {
        let total = 0;
        for (const b of order) total += counts ? counts[rows[b]] : 1;
        let seen = 0, low = NaN;
        for (const b of order) {
          seen += counts ? counts[rows[b]] : 1;
          if (Number.isNaN(low) && seen * 2 >= total && seen > 0) low = values[b][m];
          if (seen * 2 > total) return (low + values[b][m]) / 2;
        }
        return NaN;
      });
  }
  const R = rows.length, each = new Float64Array(R);
  const columns = Float64Array.from({ length: k * R }, (_, i) => values[i % R][Math.floor(i / R)]);
  const finite = columns.every(Number.isFinite);
  return (counts) => {
    let drawn = 0;
    for (let b = 0; b < R; b++) drawn += each[b] = counts ? counts[rows[b]] : 1;
    const out = new Float64Array(k);
    for (let m = 0, at = 0; m < k; m++) {
      let sum = 0, n = drawn;
      if (finite) { for (let b = 0; b < R; b++, at++) sum += each[b] * columns[at]; }
      else {
        n = 0;
        for (let b = 0; b < R; b++, at++) {
          if (each[b] === 0 || Number.isNaN(columns[at])) continue;
          sum += each[b] * columns[at];
          n += each[b];
        }
      }
      out[m] = sum / (n || NaN);
    }
    return out;
  };
}

/** Number of wins of each method in one-sided paired tests against every other. */
function wins({ rows, values }: Blocks, k: number, alpha: number, adjust: boolean): Evaluate {
  const pairs: { i: number; j: number; sorted: ReturnType<typeof bySize> }[] = [];
  for (let i = 0; i < k; i++) {
    for (let j = i + 1; j < k; j++) {
      const sorted = bySize(values.map((row) => row[i] - row[j]));
      pairs.push({ i, j, sorted: { d: sorted.d, index: sorted.index.map((b) => rows[b]) } });
    }
  }
  return (counts) => {
    const won = new Float64Array(k);
    const p = pairs.flatMap(({ sorted }) => {
      const test = wilcoxon(sorted, { counts });
      return [test.p_greater, test.p_less];
    });
    (adjust ? holm(p) : p).forEach((value, at) => {
      const { i, j } = pairs[at >> 1];
      if (value < alpha) won[at % 2 ? j : i]++;
    });
    return won;
  };
}

/** `evaluate`, which is not asked again for the counts of the last time: ranks and scores of a draw share the summary. */
function once(evaluate: Evaluate): Evaluate {
  let last: { counts?: ArrayLike<number>; found: Float64Array } | undefined;
  return (counts) => {
    if (!last || last.counts !== counts) last = { counts, found: evaluate(counts) };
    return last.found;
  };
}

/** A part of the competition that is ranked by itself: a column, or one metric pooled over datasets of a table. */
export interface Unit {
  name: string;
  metric: string;
  group: string;
  /** Index of the dataset, or -1 for a unit whose blocks are the datasets. */
  dataset: number;
  blockDatasets: Uint32Array;
  blocks: Blocks;
  /** Summary per method in the metric's own direction; null where there is none. */
  scores: Evaluate | null;
  ranks: Evaluate;
}

function unit(
  meta: Pick<Unit, "name" | "metric" | "group" | "dataset" | "blockDatasets">,
  values: readonly Float64Array[],
  direction: 1 | -1,
  settings: Settings,
): Unit {
  const { scheme, ties, missing } = settings, worst = missing.kind === "worst";
  const blocks = resolve(values, direction, meta.metric, missing, scheme === "rank-then-mean");
  const k = values[0].length;
  const means = once(summaries(blocks, k, scheme === "median-then-rank"));
  const turn = (found: Float64Array) => {
    if (direction === 1) return found;
    const out = new Float64Array(k);
    for (let m = 0; m < k; m++) out[m] = found[m] * direction;
    return out;
  };
  const scores: Evaluate = (counts) => turn(means(counts));
  if (scheme === "rank-then-mean") {
    const perBlock = blocks.values.map((row) => rank(row, ties, worst));
    return { ...meta, blocks, scores, ranks: summaries({ ...blocks, values: perBlock }, k, false) };
  }
  const score = scheme === "test-based" ? wins(blocks, k, settings.alpha, settings.adjust) : means;
  return { ...meta, blocks, scores, ranks: (counts) => rank(score(counts), ties, worst) };
}

/** How often each dataset and each case of it was drawn. */
export interface Draw {
  datasets: ArrayLike<number>;
  /** Per dataset: counts per case, or null for each once. */
  cases: readonly (ArrayLike<number> | null)[];
}

/** The outcome of one scheme on one draw. `ranks[u]` are those of unit u; `meanRanks` and `places` are overall. */
export interface Outcome {
  ranks: Float64Array[];
  meanRanks: Float64Array;
  places: Float64Array;
}

export interface Plan {
  units: Unit[];
  run(draw?: Draw): Outcome;
}

/** One unit per column. */
export function columnUnits(c: Competition, settings: Settings): Unit[] {
  return c.columns.map((column) => {
    const { name, metric, group, dataset } = column;
    return unit(
      { name, metric, group, dataset, blockDatasets: new Uint32Array() },
      column.values,
      column.direction,
      settings,
    );
  });
}

/** One unit per metric of a table, its blocks being the datasets. */
function pooledUnits(c: Competition, settings: Settings): Unit[] {
  const pools = new Map<string, Column[]>();
  for (const column of c.columns) {
    const name = [column.group === "all" ? "" : column.group, column.metric, column.part].filter(Boolean)
      .join(" · ");
    pools.set(name, [...(pools.get(name) ?? []), column]);
  }
  return [...pools].map(([name, columns]) => {
    const { metric, group, direction } = columns[0];
    const blockDatasets = Uint32Array.from(columns, (x) => x.dataset);
    return unit(
      { name, metric, group, dataset: -1, blockDatasets },
      columns.map((x) => x.values[0]),
      direction,
      settings,
    );
  });
}

/**
 * Prepares a scheme on a competition. Cases are summarised per column and column ranks are averaged; in a table of
 * dataset summaries rank-then-mean ranks every column, and the other schemes summarise each metric over the datasets.
 */
export function plan(c: Competition, settings: Settings): Plan {
  const units = c.table && settings.scheme !== "rank-then-mean"
    ? pooledUnits(c, settings)
    : columnUnits(c, settings);
  const live = units.filter((u) => u.blocks.rows.length > 0);
  const run = (draw?: Draw): Outcome => {
    const ranks = live.map((u) => {
      if (!draw) return u.ranks();
      if (u.dataset < 0) return u.ranks(Array.from(u.blockDatasets, (d) => draw.datasets[d]));
      return u.ranks(draw.cases[u.dataset] ?? undefined);
    });
    const drawn = live.map((u) => draw && u.dataset >= 0 ? draw.datasets[u.dataset] : 1);
    const meanRanks = aggregate(ranks, live, settings, drawn, c.methods.length);
    return { ranks, meanRanks, places: rankAscending(meanRanks, settings.ties) };
  };
  return { units: live, run };
}

/**
 * Averages unit ranks [units][k] to one mean rank per method: flat over units, or over datasets, metrics or
 * (weighted) groups after averaging inside each. `drawn` multiplies units. Absent ranks (NaN) are left out.
 */
export function aggregate(
  ranks: readonly Float64Array[],
  units: readonly Pick<Unit, "dataset" | "metric" | "group">[],
  { average, weights }: Pick<Settings, "average" | "weights">,
  drawn: readonly number[],
  k: number,
): Float64Array {
  const level = weights ? "group" : average;
  const parts = new Map<string, number[]>();
  units.forEach((u, i) => {
    const key = level === "column" ? "" : String(u[level]);
    parts.set(key, [...(parts.get(key) ?? []), i]);
  });
  const out = new Float64Array(k);
  for (let m = 0; m < k; m++) {
    let total = 0, weight = 0;
    for (const [key, members] of parts) {
      let sum = 0, n = 0;
      for (const i of members) {
        if (Number.isNaN(ranks[i][m])) continue;
        sum += drawn[i] * ranks[i][m];
        n += drawn[i];
      }
      if (n === 0) continue;
      const w = weights ? weights.get(key)! : level === "dataset" ? drawn[members[0]] : 1;
      total += w * sum / n;
      weight += w;
    }
    out[m] = total / (weight || NaN);
  }
  return out;
}

/** Parses `--weights seg=2,cls=1` and checks the names against the groups of the rows; `average` is --average, if given. */
export function parseWeights(
  text: string | undefined,
  groups: readonly string[],
  average: string = "group",
): Map<string, number> | null {
  if (!text) return null;
  if (average !== "group") {
    throw new UsageError(
      `rank: --weights averages over groups, so --average ${average} has no effect; give one of them`,
    );
  }
  const weights = new Map<string, number>();
  for (const pair of text.split(",")) {
    const at = pair.lastIndexOf("="), name = pair.slice(0, at).trim(), value = Number(pair.slice(at + 1));
    if (at < 1 || pair.slice(at + 1).trim() === "" || !(value >= 0) || !Number.isFinite(value)) {
      throw new UsageError(`rank: --weights has "${pair}"; write GROUP=NUMBER, separated by commas`);
    }
    if (!groups.includes(name)) {
      throw new UsageError(
        `rank: --weights names the group "${name}"; the rows have ${groups.join(", ")} (key group)`,
      );
    }
    weights.set(name, value);
  }
  const absent = groups.filter((g) => !weights.has(g));
  if (absent.length) {
    throw new UsageError(
      `rank: --weights gives none for ${absent.join(", ")}; add ${absent[0]}=1 (0 leaves it out)`,
    );
  }
  if (![...weights.values()].some((w) => w > 0)) {
    throw new UsageError(`rank: --weights are all 0; give one group more than 0`);
  }
  return weights;
}
