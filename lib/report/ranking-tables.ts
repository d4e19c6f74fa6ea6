/** The tables of a ranking report. */
import type { TrackResult } from "../eval/ranking.ts";
import { rankAscending, show } from "../eval/ranks.ts";
import type { Cell, Table } from "./tables.ts";

/** A p value, readable: "<0.0001" below that. */
export const showP = (p: number | null): string => p === null ? "–" : p < 0.0001 ? "<0.0001" : show(p, 4);

const place = (v: number | null) =>
  v === null ? "–" : Number.isInteger(v) ? String(v) : show(v, Number.isInteger(v * 2) ? 1 : 2);

/** Decimals that show four significant digits of the largest value. */
export function digits(values: readonly (number | null)[]): number {
  const largest = Math.max(0, ...values.map((v) => Math.abs(v ?? 0)));
  return largest === 0 ? 2 : Math.min(6, Math.max(0, 3 - Math.floor(Math.log10(largest))));
}

/** Marks the best and the second of one column by rank; `texts` and `ranks` are per method. */
export function marked(texts: readonly string[], ranks: readonly (number | null)[]): Cell[] {
  const order = rankAscending(ranks.map((r) => r ?? NaN), "dense");
  return texts.map((text, i) =>
    order[i] === 1 ? { text, mark: "best" } : order[i] === 2 ? { text, mark: "second" } : text
  );
}

const transpose = (columns: Cell[][]): Cell[][] => (columns[0] ?? []).map((_, i) => columns.map((c) => c[i]));

/** The final order with its uncertainty. */
export function finalTable({ final, path }: TrackResult): Table {
  const groups = Object.keys(final[0].groups);
  const several = groups.length > 1;
  const percent = (v: number | null) => v === null ? "–" : `${show(100 * v, 1)} %`;
  return {
    title: "Final ranking",
    note: path,
    header: [
      "Method",
      "Rank",
      "Mean rank",
      ...(several ? groups.map((g) => `Mean rank ${g}`) : []),
      "Score",
      "95 % ranks",
      "P(best)",
      "P(top 3)",
      "Tied with winner",
    ],
    rows: transpose([
      marked(final.map((f) => f.method), final.map((f) => f.rank)),
      final.map((f) => place(f.rank)),
      marked(final.map((f) => show(f.mean_rank)), final.map((f) => f.mean_rank)),
      ...(several ? groups.map((g) => final.map((f) => show(f.groups[g]))) : []),
      final.map((f) => show(f.score, digits(final.map((x) => x.score)))),
      final.map((f) =>
        f.rank_interval95 ? `${place(f.rank_interval95[0])} to ${place(f.rank_interval95[1])}` : "–"
      ),
      final.map((f) => percent(f.p_best)),
      final.map((f) => percent(f.p_top3)),
      final.map((f) => f.tied_with_winner ? "yes" : "no"),
    ]),
  };
}

/** Values per column, best bold, second underlined: the table that papers print. */
export function valueTable({ final, columns }: TrackResult): Table {
  const methods = final.map((f) => f.method);
  return {
    title: "Values per column",
    note: "max: larger is better, min: smaller is better; best bold, second marked",
    header: ["Method", ...columns.map((c) => `${c.name} (${c.direction})`), "Mean rank"],
    rows: transpose([
      methods,
      ...columns.map((c) => {
        const values = methods.map((m) => c.values[m]);
        return marked(values.map((v) => show(v, digits(values))), methods.map((m) => c.ranks[m]));
      }),
      marked(final.map((f) => show(f.mean_rank)), final.map((f) => f.mean_rank)),
    ]),
  };
}

function rankTable({ final, columns }: TrackResult): Table {
  const methods = final.map((f) => f.method);
  return {
    title: "Rank per column",
    header: ["Column", "Group", "Blocks", ...methods],
    rows: columns.map((c) => [c.name, c.group, String(c.blocks), ...methods.map((m) => place(c.ranks[m]))]),
  };
}

function testTables({ tests, bootstrap, final }: TrackResult): Table[] {
  const { friedman: f } = tests, winner = final[0].method;
  const families = new Set(tests.wilcoxon.map((t) => t.family)).size;
  const shown = tests.wilcoxon.length > 200 ? tests.wilcoxon.filter((t) => t.a === winner) : tests.wilcoxon;
  const all = [["over all", f] as const, ...tests.friedman_by_metric.map((x) => [x.metric, x] as const)];
  return [
    {
      title: "Friedman and Iman-Davenport",
      note: tests.note ?? `blocks: ${f?.blocks}; CD: Nemenyi's critical difference of mean ranks`,
      header: ["Blocks of", "N", "k", "chi2", "p", "F", "p (F)", "CD 0.05", "CD 0.10"],
      rows: all.flatMap(([name, x]) =>
        x
          ? [[
            name,
            String(x.n),
            String(x.k),
            show(x.chi2, 4),
            showP(x.p),
            x.iman_davenport_F === null ? "∞" : show(x.iman_davenport_F, 4),
            showP(x.iman_davenport_p),
            show(x.cd05, 3),
            show(x.cd10, 3),
          ]]
          : []
      ),
    },
    {
      title: "Wilcoxon signed-rank tests",
      note: `two-sided, Holm over all pairs of a family (${families} families)` +
        (shown.length < tests.wilcoxon.length
          ? "; pairs with the winner only, all pairs are in rank.json"
          : ""),
      header: [
        "Family",
        "Pair",
        "n",
        "zeros",
        "W",
        "p",
        "p Holm",
        "p greater",
        "Rank-biserial",
        "Median difference",
      ],
      rows: shown.map((
        t,
      ) => [
        t.family,
        `${t.a} – ${t.b}`,
        String(t.n),
        String(t.zeros),
        String(t.W),
        showP(t.p) +
        (t.smallest_p >= tests.alpha ? " (cannot be significant at this n)" : ""),
        showP(t.p_holm),
        showP(t.p_greater),
        show(t.rank_biserial),
        show(t.median_difference, 4),
      ]),
    },
    {
      title: "Nemenyi p values",
      note: "all pairs, after Friedman",
      header: ["Pair", "Difference of mean ranks", "p"],
      rows: tests.nemenyi.map((t) => [`${t.a} – ${t.b}`, show(t.difference), showP(t.p)]),
    },
    ...(bootstrap
      ? [{
        title: "Rank frequencies in the bootstrap",
        note:
          `${
            bootstrap.exact ? "all" : "sampled"
          } ${bootstrap.replicates} resamples of ${bootstrap.level}; tau mean ` +
          `${show(bootstrap.tau_mean, 3)}, median ${show(bootstrap.tau_median, 3)}; simulation error ${
            show(bootstrap.simulation_error, 3)
          }`,
        header: ["Method", "Rank: count", "P(best) strict", "shared", "fractional", "Median rank"],
        rows: final.map(({ method }): Cell[] => {
          const counts = Object.entries(bootstrap.rank_counts[method]).sort((a, b) =>
            Number(a[0]) - Number(b[0])
          );
          const best = bootstrap.p_best[method];
          return [
            method,
            counts.map(([r, n]) => `${r}: ${n}`).join(", "),
            show(best.strict, 3),
            show(best.shared, 3),
            show(best.fractional, 3),
            place(bootstrap.median_rank[method]),
          ];
        }),
      }]
      : []),
  ];
}

/** All tables of one track, the final one first. */
export function trackTables(track: TrackResult): Table[] {
  const { final, schemes, stability, datasets } = track, methods = final.map((f) => f.method);
  const left = [
    ...stability.leave_one_dataset_out.map((l) => ({ ...l, what: "dataset" })),
    ...stability.leave_one_metric_out.map((l) => ({ ...l, what: "metric" })),
  ];
  return [
    finalTable(track),
    valueTable(track),
    rankTable(track),
    {
      title: "Ranks under every scheme",
      note: "tau: Kendall's tau-b against the chosen scheme",
      header: ["Scheme", ...methods, "tau"],
      rows: schemes.map((s) => [s.scheme, ...methods.map((m) => place(s.ranks[m])), show(s.tau, 3)]),
    },
    ...testTables(track),
    {
      title: "Leave one out",
      header: ["Left out", "Name", "Winner", "tau"],
      rows: left.map((l) => [l.what, l.left_out, l.winner.join(", "), show(l.tau, 3)]),
    },
    {
      title: "Data",
      header: ["Dataset", "Cases", "Subjects"],
      rows: datasets.map((d) =>
        d.summary ? [d.name, "summary", "–"] : [d.name, String(d.cases), String(d.subjects)]
      ),
    },
    ...(stability.weight_sensitivity.length
      ? [{
        title: "Weights of the groups",
        note: "the winner stays first while the group's share of the weight is within the range",
        header: ["Group", "Share", "Winner holds from", "to"],
        rows: stability.weight_sensitivity.map((
          w,
        ) => [w.group, show(w.share), show(w.winner_holds[0]), show(w.winner_holds[1])]),
      }]
      : []),
  ];
}
