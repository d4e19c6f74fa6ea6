/** The tests of one competition: which blocks, which family, and the numbers. */
import type { Column, Competition } from "./columns.ts";
import { quantile, rank, settle } from "./ranks.ts";
import { resolve, type Settings } from "./schemes.ts";
import { cliques, type Friedman, friedman, holm, nemenyi, type Wilcoxon, wilcoxon } from "./tests.ts";

/** One pair; `a` is the better one overall. The family of `p_holm` is all pairs of the same `family`. */
export interface Pair extends Wilcoxon {
  family: string;
  blocks: "cases" | "datasets";
  a: string;
  b: string;
  p_holm: number;
  /** Holm over the winner against each other method; null for other pairs. */
  p_holm_winner: number | null;
  median_difference: number | null;
  /** Smallest two-sided p that n informative pairs can reach. */
  smallest_p: number;
}

export interface Tests {
  alpha: number;
  wilcoxon: Pair[];
  friedman: Friedman & { blocks: "datasets" | "cases" } | null;
  friedman_by_metric: ({ metric: string } & Friedman)[];
  nemenyi: { a: string; b: string; difference: number; p: number }[];
  cliques05: string[][];
  /** Why there is no Friedman test, where there is none. */
  note: string | null;
}

/** Families for paired differences: every column over its cases; of a table, every metric over its datasets. */
function families(c: Competition, settings: Settings) {
  const out: { family: string; blocks: "cases" | "datasets"; values: Float64Array[]; direction: 1 | -1 }[] =
    [];
  const pools = new Map<string, Column[]>();
  for (const column of c.columns) {
    const key = [column.metric, column.part].filter(Boolean).join(" · ");
    if (c.datasets[column.dataset].summary) pools.set(key, [...(pools.get(key) ?? []), column]);
    else {
      const { values } = resolve(column.values, column.direction, column.metric, settings.missing, false);
      out.push({ family: column.name, blocks: "cases", values, direction: column.direction });
    }
  }
  for (const [family, columns] of pools) {
    const { metric, direction } = columns[0];
    const { values } = resolve(columns.map((x) => x.values[0]), direction, metric, settings.missing, false);
    out.push({ family, blocks: "datasets", values, direction });
  }
  return out;
}

/**
 * Wilcoxon for all pairs per family, Friedman and Nemenyi over datasets (one value per dataset: the mean of its column
 * ranks) or, with a single dataset, over its cases. `columnRanks` [columns][k] are the scheme's; `order` is best first.
 */
export function significance(
  c: Competition,
  settings: Settings,
  columnRanks: readonly ArrayLike<number>[],
  order: readonly number[],
): Tests {
  const { methods, datasets, columns } = c, k = methods.length;
  const pairs: Pair[] = [];
  for (const { family, blocks, values } of families(c, settings)) {
    const own: Pair[] = [];
    for (let x = 0; x < k; x++) {
      for (let y = x + 1; y < k; y++) {
        const [i, j] = [order[x], order[y]];
        const d = values.map((row) => settle(row[i] - row[j])).filter((v) => !Number.isNaN(v));
        const test = wilcoxon(d);
        own.push({
          family,
          blocks,
          a: methods[i],
          b: methods[j],
          ...test,
          p_holm: 1,
          p_holm_winner: null,
          median_difference: d.length ? settle(quantile(Float64Array.from(d).sort(), 0.5)) : null,
          smallest_p: Math.min(1, 2 / 2 ** test.n),
        });
      }
    }
    holm(own.map((t) => t.p)).forEach((p, i) => own[i].p_holm = p);
    holm(own.slice(0, k - 1).map((t) => t.p)).forEach((p, i) => own[i].p_holm_winner = p);
    pairs.push(...own);
  }
  const perDataset = (use: (column: Column) => boolean) =>
    datasets.map((_, d) => {
      const own = columns.map((_, i) => i).filter((i) => columns[i].dataset === d && use(columns[i]));
      return methods.map((_, m) => -own.reduce((s, i) => s + columnRanks[i][m], 0) / (own.length || NaN));
    }).filter((block) => !block.some(Number.isNaN));
  const perCase = () =>
    datasets[0].cases.map((_, at) => {
      const own = columns.map((column) => Array.from(column.values[at], (v) => v * column.direction));
      if (own.length === 1) return own[0];
      const ranks = own.map((values) => [...rank(values)]);
      return methods.map((_, m) => -ranks.reduce((s, r) => s + r[m], 0));
    }).filter((block) => !block.some(Number.isNaN));
  const overCases = datasets.length === 1 && !datasets[0].summary;
  const blocks = overCases ? perCase() : perDataset(() => true);
  const metrics = [...new Set(columns.map((x) => x.metric))];
  const enough = k > 1 && blocks.length > 1;
  const result = enough ? friedman(blocks) : null;
  return {
    alpha: settings.alpha,
    wilcoxon: pairs,
    friedman: result && { blocks: overCases ? "cases" : "datasets", ...result },
    friedman_by_metric: metrics.length < 2 || overCases || k < 2 ? [] : metrics.flatMap((metric) => {
      const own = perDataset((x) => x.metric === metric);
      return own.length > 1 ? [{ metric, ...friedman(own) }] : [];
    }),
    nemenyi: !result ? [] : order.flatMap((i, x) =>
      order.slice(x + 1).map((j) => {
        const difference = settle(result.mean_ranks[j] - result.mean_ranks[i]);
        return { a: methods[i], b: methods[j], difference, p: nemenyi(difference, k, result.n) };
      })
    ),
    cliques05: result ? cliques(result.mean_ranks, result.cd05).map((run) => run.map((i) => methods[i])) : [],
    note: enough ? null : k < 2 ? "one method: no test" : "fewer than two complete blocks: no Friedman test",
  };
}
