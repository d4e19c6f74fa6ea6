/** The figures of a ranking report: one colour per method throughout, every method also named on an axis or a line. */
import * as Plot from "@observablehq/plot";
import type { Competition } from "../eval/columns.ts";
import type { TrackResult } from "../eval/ranking.ts";
import { compareNames, quantile, show } from "../eval/ranks.ts";
import { svg } from "./figure.ts";
import { bootstrapFigures } from "./ranking-bootstrap.ts";
import { type Figure, type Frame, matrix, PALETTE, places, room, short, WIDTH } from "./ranking-frame.ts";
import { showP } from "./ranking-tables.ts";

/** Critical-difference diagram (Demsar 2006): mean ranks, leader lines, the CD to scale, bars over cliques. */
function criticalDifference({ track, methods, colour }: Frame): Figure {
  const f = track.tests.friedman, k = methods.length;
  const mean = new Map(
    track.final.map((x) => [x.method, f ? f.mean_ranks[track.methods.indexOf(x.method)] : x.mean_rank]),
  );
  const order = methods.filter((m) => !Number.isNaN(mean.get(m)!)).sort((a, b) =>
    mean.get(a)! - mean.get(b)!
  );
  const half = Math.ceil(order.length / 2), bars = track.tests.cliques05;
  const names = order.map((method, i) => {
    const first = i < half, level = first ? i : order.length - 1 - i;
    return {
      method,
      x: mean.get(method)!,
      y: -0.9 * bars.length * 0.5 - 1 - level,
      end: first ? 1 : Math.max(k, 2),
      first,
    };
  });
  const label = (m: string) => `${short(m)} (${show(mean.get(m)!)})`;
  const cliqueBars = bars.map((run, i) => ({
    x1: Math.min(...run.map((m) => mean.get(m)!)) - 0.03,
    x2: Math.max(...run.map((m) => mean.get(m)!)) + 0.03,
    y: -0.3 - 0.45 * i,
  }));
  const side = room(order.map(label));
  const rows = half + bars.length * 0.45 + 3;
  const texts = (first: boolean) =>
    Plot.text(names.filter((n) => n.first === first), {
      x: "end",
      y: "y",
      text: (n) => label(n.method),
      textAnchor: first ? "end" : "start",
      dx: first ? -5 : 5,
      fontSize: 11,
    });
  return {
    svg: svg({
      width: WIDTH,
      height: 60 + rows * 20,
      marginLeft: side,
      marginRight: side,
      marginTop: 40,
      marginBottom: 5,
      x: {
        domain: [1, Math.max(k, 2)],
        axis: "top",
        label: "mean rank",
        ticks: Math.min(k, 12),
        tickFormat: (d: number) => show(d, k > 3 ? 0 : 1),
      },
      y: { axis: null, domain: [-rows + 0.5, 1] },
      color: colour,
      marks: [
        Plot.ruleY([0], { x1: 1, x2: Math.max(k, 2) }),
        Plot.link(names, { x1: "x", x2: "x", y1: 0, y2: "y", stroke: "method", strokeWidth: 1.3 }),
        Plot.link(names, { x1: "x", x2: "end", y1: "y", y2: "y", stroke: "method", strokeWidth: 1.3 }),
        Plot.link(cliqueBars, {
          x1: "x1",
          x2: "x2",
          y1: "y",
          y2: "y",
          strokeWidth: 5,
          strokeLinecap: "round",
        }),
        texts(true),
        texts(false),
        ...(f && f.cd05 < k - 1
          ? [
            Plot.link([{ x1: 1, x2: 1 + f.cd05 }], { x1: "x1", x2: "x2", y1: 0.6, y2: 0.6, strokeWidth: 3 }),
            Plot.text([`CD ${show(f.cd05)}`], {
              x: 1 + f.cd05,
              y: 0.6,
              text: (d) => d,
              textAnchor: "start",
              dx: 5,
            }),
          ]
          : []),
      ],
    }),
    caption: f
      ? `Mean ranks over ${f.n} ${f.blocks}; methods under one bar differ by less than Nemenyi's CD ${
        show(f.cd05)
      } (0.05).`
      : `Mean ranks; ${track.tests.note}.`,
  };
}

function columnMatrix({ track, methods }: Frame): Figure {
  const k = methods.length;
  const cells = track.columns.flatMap((c) =>
    methods.flatMap((m) => {
      const r = c.ranks[m];
      return r === null ? [] : [{
        x: m,
        y: c.name,
        value: k > 1 ? (k - r) / (k - 1) : 1,
        text: show(r, Number.isInteger(r) ? 0 : 1),
      }];
    })
  );
  const caption =
    "Rank of every method on every column, dark is better; columns are sorted by group, then dataset.";
  return { svg: matrix(cells, methods, track.columns.map((c) => c.name), {}), caption };
}

/** How often each method takes each place over the cases (one dataset) or the columns. */
function placeHeat({ track, methods }: Frame): Figure {
  const seen = [...new Set(track.columns.flatMap((c) => methods.map((m) => c.ranks[m])))].filter((r) =>
    r !== null
  )
    .map((r) => show(r, Number.isInteger(r) ? 0 : 2)).sort(compareNames);
  const cells = methods.flatMap((m) =>
    seen.map((place) => {
      const n = track.columns.filter((c) =>
        c.ranks[m] !== null && show(c.ranks[m], Number.isInteger(c.ranks[m]) ? 0 : 2) === place
      ).length;
      return { x: place, y: m, value: n / track.columns.length, text: n ? String(n) : "" };
    })
  );
  return {
    svg: matrix(cells, seen, methods, { xLabel: "rank" }),
    caption: "Number of columns on which a method has each rank.",
  };
}

/** Dots for cases with a box; for a table, dots per dataset. One figure per metric (at most four metrics). */
function values({ track, methods, colour, left }: Frame, c: Competition): Figure[] {
  const metrics = [...new Set(c.columns.map((x) => x.metric))].slice(0, 4);
  return metrics.map((metric) => {
    const columns = c.columns.filter((x) => x.metric === metric).slice(0, 12);
    const points = columns.flatMap((column) =>
      column.values.flatMap((row) =>
        methods.map((method) => ({
          method,
          column: short(column.name),
          value: row[track.methods.indexOf(method)],
        }))
      )
    ).filter((p) => !Number.isNaN(p.value));
    const cased = columns.some((x) => x.values.length > 1);
    const boxes = columns.flatMap((column) =>
      methods.flatMap((method) => {
        const own = points.filter((p) => p.method === method && p.column === short(column.name)).map((p) =>
          p.value
        ).sort((a, b) => a - b);
        if (own.length < 2) return [];
        const [low, middle, high] = [0.25, 0.5, 0.75].map((p) => quantile(own, p));
        return [{ method, column: short(column.name), low, middle, high }];
      })
    );
    const names = columns.map((x) => short(x.name));
    const common = {
      marginRight: 15,
      x: { label: metric, grid: true, nice: true },
      color: colour,
      width: WIDTH,
    };
    const image = cased
      ? svg({
        ...common,
        height: 50 + columns.length * (methods.length * 16 + 18),
        marginLeft: left,
        marginRight: room(names),
        fy: { domain: names, label: null },
        y: { domain: methods, label: null, tickFormat: short },
        marks: [
          Plot.barX(boxes, {
            fy: "column",
            y: "method",
            x1: "low",
            x2: "high",
            fill: "method",
            fillOpacity: 0.25,
          }),
          Plot.tickX(boxes, { fy: "column", y: "method", x: "middle", stroke: "method", strokeWidth: 2 }),
          Plot.dot(points.length > 5000 ? [] : points, {
            fy: "column",
            y: "method",
            x: "value",
            stroke: "method",
            r: 1.8,
          }),
        ],
      })
      : svg({
        ...common,
        height: 70 + columns.length * 26 + 16 * Math.ceil(methods.length / 4),
        marginLeft: room(names),
        y: { domain: names, label: null },
        marks: [
          Plot.dot(points, { y: "column", x: "value", stroke: "method", r: 4, strokeWidth: 1.5 }),
          Plot.text(points, {
            y: "column",
            x: "value",
            text: (p) => String(methods.indexOf(p.method) + 1),
            dy: -9,
            fontSize: 8,
            fill: "method",
          }),
        ],
      });
    const legend = cased
      ? `${points.length > 5000 ? "" : "dots are cases, "}boxes quartiles with the median`
      : `numbers: ${methods.map((m, i) => `${i + 1} ${m}`).join(", ")}`;
    return {
      svg: image,
      caption: `${metric} per column (${
        columns[0].direction > 0 ? "larger" : "smaller"
      } is better); ${legend}.`,
    };
  });
}

function schemeLines({ track, methods, colour }: Frame): Figure {
  const points = track.schemes.flatMap((s) =>
    methods.map((method) => ({ method, scheme: s.scheme, rank: s.ranks[method] }))
  )
    .filter((p) => !Number.isNaN(p.rank));
  const last = track.schemes[track.schemes.length - 1].scheme;
  return {
    svg: svg({
      width: WIDTH,
      height: 90 + methods.length * 24,
      marginRight: room(methods.map(short)),
      marginTop: 15,
      x: { domain: track.schemes.map((s) => s.scheme), label: null, type: "point", padding: 0.3 },
      y: {
        domain: [methods.length + 0.3, 0.7],
        label: "rank",
        ticks: places(methods.length),
        tickFormat: String,
      },
      color: colour,
      marks: [
        Plot.line(points, { x: "scheme", y: "rank", stroke: "method", strokeWidth: 2 }),
        Plot.dot(points, { x: "scheme", y: "rank", fill: "method", r: 4 }),
        Plot.text(spread(points.filter((p) => p.scheme === last)), {
          x: "scheme",
          y: "at",
          text: (p) => short(p.method),
          textAnchor: "start",
          dx: 9,
          fill: "method",
        }),
      ],
    }),
    caption: "Rank under every scheme; lines that cross depend on the choice of the scheme.",
  };
}

/** Labels of equal ranks are put side by side, 0.6 of a place apart. */
function spread<T extends { rank: number }>(points: readonly T[]): (T & { at: number })[] {
  return points.map((p, i) => {
    const same = points.filter((q) => q.rank === p.rank),
      before = points.slice(0, i).filter((q) => q.rank === p.rank).length;
    return { ...p, at: p.rank + 0.6 * (before - (same.length - 1) / 2) };
  });
}

function significanceMap({ track, methods }: Frame): Figure {
  const { nemenyi, wilcoxon, alpha } = track.tests, family = wilcoxon[0]?.family;
  const one = new Set(wilcoxon.map((t) => t.family)).size === 1;
  const pairs = one || !nemenyi.length
    ? wilcoxon.filter((t) => t.family === family).map((t) => ({
      a: t.a,
      b: t.b,
      p: t.p_holm,
      better: t.p_greater <= t.p_less,
    }))
    : nemenyi.map((t) => ({ a: t.a, b: t.b, p: t.p, better: t.difference >= 0 }));
  const cells = pairs.map(({ a, b, p, better }) => {
    const [y, x] = better ? [a, b] : [b, a];
    return { x, y, value: p < alpha ? 1 : 0.1, text: showP(p) };
  });
  const what = one || !nemenyi.length
    ? `Wilcoxon, ${family ?? "no pairs"}, Holm over all pairs`
    : "Nemenyi over all columns";
  return {
    svg: matrix(cells, methods, methods, { xLabel: "not as good", yLabel: "better" }),
    caption:
      `Adjusted p values (${what}): a dark cell says that the row method beats the column method at ${alpha}.`,
  };
}

/** All figures of one track: at least six, ten with a bootstrap. */
export function figures(track: TrackResult, c: Competition): Figure[] {
  const methods = track.final.map((f) => f.method);
  const range = track.methods.map((_, i) => PALETTE[i % PALETTE.length]);
  const frame: Frame = {
    track,
    methods,
    colour: { domain: track.methods, range },
    left: room(methods.map(short)),
  };
  return [
    criticalDifference(frame),
    columnMatrix(frame),
    ...values(frame, c),
    ...bootstrapFigures(frame),
    schemeLines(frame),
    significanceMap(frame),
    placeHeat(frame),
  ];
}
