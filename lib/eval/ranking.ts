/** One competition ranked: final order, columns, tests, bootstrap, scheme comparison, stability, verdict. */
import { type Bootstrap, bootstrap } from "./bootstrap.ts";
import { type Competition, emptyBlocks } from "./columns.ts";
import { kendall, rankAscending, settle, show } from "./ranks.ts";
import { aggregate, columnUnits, plan, SCHEMES, type Settings } from "./schemes.ts";
import { significance, type Tests } from "./significance.ts";

/** One line of the final table. */
export interface Place {
  method: string;
  rank: number;
  mean_rank: number;
  /** Average of places per unit instead of raw mean ranks; differs under rank-then-mean over cases. */
  mean_rank_reranked: number;
  /** Mean summary over units when all have one metric, else null. */
  score: number | null;
  groups: Record<string, number>;
  p_best: number | null;
  p_best_strict: number | null;
  p_best_shared: number | null;
  p_top3: number | null;
  median_rank: number | null;
  rank_interval95: [number, number] | null;
  tied_with_winner: boolean;
}

/** One (dataset, metric) as printed in papers. `values` are summaries by the scheme. */
export interface ColumnResult {
  name: string;
  dataset: string;
  metric: string;
  part: string;
  group: string;
  direction: "max" | "min";
  blocks: number;
  lost: number;
  values: Record<string, number | null>;
  ranks: Record<string, number | null>;
  intervals95: Record<string, [number, number] | null> | null;
}

export interface Stability {
  leave_one_dataset_out: { left_out: string; winner: string[]; tau: number | null }[];
  leave_one_metric_out: { left_out: string; winner: string[]; tau: number | null }[];
  /** Per group: the shares of the total weight (0..1 in steps of 0.05) at which the winner stays first. */
  weight_sensitivity: { group: string; share: number; winner_holds: [number, number] }[];
}

export interface TrackResult {
  track: string;
  methods: string[];
  datasets: { name: string; cases: number; subjects: number; summary: boolean }[];
  path: string;
  final: Place[];
  columns: ColumnResult[];
  tests: Tests;
  bootstrap: Bootstrap | null;
  schemes: {
    scheme: string;
    ranks: Record<string, number>;
    mean_ranks: Record<string, number>;
    tau: number | null;
  }[];
  stability: Stability;
  winner: string[];
  verdict: string;
  caveats: string[];
}

const clean = (v: number) => Number.isNaN(v) ? null : v;

/** Ranks one competition. `replicates` 0 skips the bootstrap. `table` and case rows are told apart by the competition. */
export function rankCompetition(
  c: Competition,
  settings: Settings,
  replicates: number,
  seed: number,
  level?: Bootstrap["level"],
): TrackResult {
  const { methods, datasets, columns } = c, k = methods.length;
  const main = plan(c, settings), outcome = main.run();
  const named = <T>(f: (m: number) => T) =>
    Object.fromEntries(methods.map((name, m) => [name, f(m)])) as Record<string, T>;
  const winnersOf = (places: ArrayLike<number>) => {
    const first = Math.min(...Array.from(places).filter((p) => !Number.isNaN(p)));
    return methods.filter((_, m) => places[m] === first);
  };
  const order = methods.map((_, m) => m).sort((a, b) => {
    const x = outcome.places[a], y = outcome.places[b];
    return (Number.isNaN(x) ? Infinity : x) - (Number.isNaN(y) ? Infinity : y) || a - b;
  });
  const perColumn = columnUnits(c, c.table ? { ...settings, scheme: "rank-then-mean" } : settings);
  const columnRanks = perColumn.map((u) => u.ranks());
  const boot = replicates > 0 && k > 1 ? bootstrap(c, main, replicates, seed, level) : null;
  const tests = significance(c, settings, columnRanks, order);
  const winner = winnersOf(outcome.places);
  const tied = tiedWith(winner[0], methods, tests);
  const reranked = aggregate(
    outcome.ranks.map((r) => rankAscending(r, settings.ties)),
    main.units,
    settings,
    main.units.map(() => 1),
    k,
  );
  const oneMetric = new Set(main.units.map((u) => u.metric)).size === 1;
  const scores = oneMetric ? main.units.map((u) => u.scores!()) : [];
  const groups = [...new Set(main.units.map((u) => u.group))];
  const groupRanks = new Map(groups.map((g) => {
    const own = main.units.map((_, i) => i).filter((i) => main.units[i].group === g);
    const flat = { average: settings.average, weights: null };
    return [
      g,
      aggregate(own.map((i) => outcome.ranks[i]), own.map((i) => main.units[i]), flat, own.map(() => 1), k),
    ];
  }));
  const final = order.map((m): Place => {
    const method = methods[m];
    return {
      method,
      rank: outcome.places[m],
      mean_rank: outcome.meanRanks[m],
      mean_rank_reranked: reranked[m],
      score: scores.length ? clean(scores.reduce((s, v) => s + v[m], 0) / scores.length) : null,
      groups: Object.fromEntries(groups.map((g) => [g, groupRanks.get(g)![m]])),
      p_best: boot && boot.p_best[method].fractional,
      p_best_strict: boot && boot.p_best[method].strict,
      p_best_shared: boot && boot.p_best[method].shared,
      p_top3: boot && boot.p_top3[method],
      median_rank: boot && boot.median_rank[method],
      rank_interval95: boot && boot.rank_interval95[method],
      tied_with_winner: winner.includes(method) || tied.includes(method),
    };
  });
  const results = columns.map((column, i): ColumnResult => {
    const u = perColumn[i], at = main.units.findIndex((x) => x.dataset >= 0 && x.name === column.name);
    const values = u.blocks.rows.length ? u.scores!() : new Float64Array(k).fill(NaN);
    const intervals = boot?.level === "cases" && at >= 0 && !datasets[column.dataset].summary
      ? boot.intervals[at]
      : null;
    return {
      name: column.name,
      dataset: datasets[column.dataset].name,
      metric: column.metric,
      part: column.part,
      group: column.group,
      direction: column.direction > 0 ? "max" : "min",
      blocks: u.blocks.rows.length,
      lost: u.blocks.lost,
      values: named((m) => clean(values[m])),
      ranks: named((m) => clean(columnRanks[i][m])),
      intervals95: intervals && named((m) => intervals[m]),
    };
  });
  const schemes = SCHEMES.map((scheme) => {
    const other = plan(c, { ...settings, scheme }).run();
    const ranks = named((m) => other.places[m]), mean_ranks = named((m) => other.meanRanks[m]);
    return { scheme, ranks, mean_ranks, tau: kendall(other.places, outcome.places) };
  });
  const metrics = [...new Set(columns.map((x) => x.metric))];
  const leave = (places: ArrayLike<number>, left_out: string) => ({
    left_out,
    winner: winnersOf(places),
    tau: kendall(places, outcome.places),
  });
  const stability: Stability = {
    leave_one_dataset_out: datasets.length < 2 ? [] : datasets.map((d, out) => {
      const kept = { ...c, columns: columns.filter((x) => x.dataset !== out) };
      return leave(plan(kept, reweighted(settings, kept)).run().places, d.name);
    }),
    leave_one_metric_out: metrics.length < 2 ? [] : metrics.map((metric) => {
      const kept = { ...c, columns: columns.filter((x) => x.metric !== metric) };
      return leave(plan(kept, reweighted(settings, kept)).run().places, metric);
    }),
    weight_sensitivity: groups.length < 2 ? [] : groups.map((group) => {
      const weight = (g: string) =>
        settings.weights ? settings.weights.get(g)! : groupWeight(g, main.units, settings);
      const total = groups.reduce((s, g) => s + weight(g), 0), rest = total - weight(group);
      const holds = Array.from({ length: 21 }, (_, i) => i / 20).filter((share) => {
        const weights = new Map(
          groups.map((g) => [g, g === group ? share : rest ? (1 - share) * weight(g) / rest : 0]),
        );
        const means = aggregate(
          outcome.ranks,
          main.units,
          { average: "group", weights },
          main.units.map(() => 1),
          k,
        );
        return winnersOf(rankAscending(means)).includes(winner[0]);
      });
      const range: [number, number] = holds.length ? [holds[0], holds[holds.length - 1]] : [NaN, NaN];
      return { group, share: settle(weight(group) / total), winner_holds: range };
    }),
  };
  const result = {
    track: c.track,
    methods,
    datasets: datasets.map((d) => ({
      name: d.name,
      cases: d.cases.length,
      subjects: d.subjects,
      summary: d.summary,
    })),
    path: path(c, settings),
    final,
    columns: results,
    tests,
    bootstrap: boot,
    schemes,
    stability,
    winner,
  };
  return { ...result, verdict: verdict(result), caveats: caveats(c, result, settings) };
}

function groupWeight(
  group: string,
  units: readonly { group: string; dataset: number; metric: string }[],
  settings: Settings,
) {
  const own = units.filter((u) => u.group === group);
  return settings.average === "group"
    ? 1
    : settings.average === "column"
    ? own.length
    : new Set(own.map((u) => u[settings.average as "dataset"])).size;
}

/** Weights without the groups that a subset no longer has. */
function reweighted(settings: Settings, c: Competition): Settings {
  const left = new Set(c.columns.map((x) => x.group));
  return settings.weights
    ? { ...settings, weights: new Map([...settings.weights].filter(([g]) => left.has(g))) }
    : settings;
}

/** Methods that no test separates from the winner: Nemenyi where there is one, else Holm on the only Wilcoxon family. */
function tiedWith(winner: string, methods: readonly string[], tests: Tests): string[] {
  const others = methods.filter((m) => m !== winner);
  if (tests.nemenyi.length) {
    return others.filter((m) =>
      tests.nemenyi.some((t) => t.p >= tests.alpha && [t.a, t.b].includes(m) && [t.a, t.b].includes(winner))
    );
  }
  return others.filter((m) =>
    tests.wilcoxon.filter((t) => t.a === winner && t.b === m).every((t) =>
      (t.p_holm_winner ?? 1) >= tests.alpha
    )
  );
}

function path(c: Competition, { scheme, average, weights }: Settings): string {
  const start = c.table
    ? scheme === "rank-then-mean"
      ? "dataset value → rank per column"
      : `dataset values → ${scheme} per metric`
    : `case → ${scheme} per column`;
  const top = weights
    ? `→ mean per group → weighted mean (${[...weights].map(([g, w]) => `${g}=${w}`).join(", ")})`
    : average === "column"
    ? "→ mean over columns"
    : `→ mean per ${average} → mean over ${average}s`;
  return `${start} ${top} → rank`;
}

function verdict(
  { final, winner, tests, bootstrap: boot, stability }: Omit<TrackResult, "verdict" | "caveats">,
): string {
  if (final.length < 2) return `Only ${final[0].method} takes part; there is nothing to compare.`;
  const out = [
    winner.length > 1
      ? `${winner.join(" and ")} share the first place (mean rank ${show(final[0].mean_rank)}).`
      : `${winner[0]} is first with mean rank ${show(final[0].mean_rank)}.`,
  ];
  if (boot && boot.replicates > 1) {
    out.push(
      `It is first in ${
        show(100 * boot.p_best[winner[0]].fractional, 1)
      } % of the resamples (${boot.level}).`,
    );
  }
  const loo = stability.leave_one_dataset_out;
  if (loo.length) {
    const held = loo.filter((l) => l.winner.includes(winner[0])).length;
    out.push(`It stays first in ${held} of ${loo.length} runs that leave one dataset out.`);
  }
  const sure = tests.nemenyi.filter((t) => t.p < tests.alpha && (t.a === winner[0] || t.b === winner[0]));
  if (tests.friedman) {
    const beaten = sure.map((t) => t.a === winner[0] ? t.b : t.a);
    out.push(
      `Nemenyi separates it ${
        beaten.length ? `from ${beaten.join(", ")}` : "from no method"
      } at ${tests.alpha}.`,
    );
  }
  const first = tests.wilcoxon.filter((t) => t.a === winner[0] && t.p_holm_winner !== null);
  const families = new Set(first.map((t) => t.family));
  if (families.size === 1) {
    const open = first.filter((t) => t.p_holm_winner! >= tests.alpha).map((t) => t.b);
    const n = Math.max(...first.map((t) => t.n));
    if (first.every((t) => t.smallest_p >= tests.alpha)) {
      out.push(`Wilcoxon cannot be significant at this n (${n} pairs).`);
    } else {out.push(
        `Wilcoxon with Holm ${
          open.length ? `does not separate it from ${open.join(", ")}` : "separates it from all others"
        }.`,
      );}
  }
  return out.join(" ");
}

function caveats(c: Competition, r: Omit<TrackResult, "verdict" | "caveats">, settings: Settings): string[] {
  const out = [...c.warnings], empty = emptyBlocks(c);
  if (empty) out.push(`${empty} blocks have a value of no method and are left out`);
  if (settings.missing.kind === "available") {
    out.push("missing values are skipped, which flatters methods that skip hard cases");
  }
  const lost = r.columns.reduce((s, x) => s + x.lost, 0);
  if (lost) out.push(`${lost} blocks were lost because not every method has them`);
  if (c.table) {
    out.push('only dataset summaries: the bootstrap answers "other datasets", not "other patients"');
  }
  if (c.datasets.length < 6 && c.table) out.push(`only ${c.datasets.length} datasets`);
  if (new Set(c.columns.map((x) => x.metric)).size > 1) {
    out.push("metrics of one dataset depend on each other");
  }
  if (r.bootstrap?.exact && r.bootstrap.replicates === 1) {
    out.push(
      "the bootstrap has one draw and says nothing: every dataset has one case, or there is one dataset",
    );
  }
  if (r.winner.length > 1) out.push("the winner is undecided: the first place is shared");
  const weak = r.tests.wilcoxon.filter((t) => t.smallest_p >= settings.alpha);
  if (weak.length) out.push(`${weak.length} Wilcoxon tests cannot be significant at this n`);
  if (r.bootstrap?.tau_undefined) {
    out.push(`${r.bootstrap.tau_undefined} replicates tie all methods and have no tau`);
  }
  return out;
}
