/** Figures of the bootstrap: blobs, rank shares, pairwise wins, agreement. */
import * as Plot from "@observablehq/plot";
import { show } from "../eval/ranks.ts";
import { svg } from "./figure.ts";
import { type Figure, type Frame, matrix, PALETTE, places, short, WIDTH } from "./ranking-frame.ts";

/** Four figures, or none without a bootstrap. */
export function bootstrapFigures({ track, methods, colour, left }: Frame): Figure[] {
  const b = track.bootstrap;
  if (!b) return [];
  const k = methods.length;
  const shares = methods.flatMap((method) =>
    Object.entries(b.rank_counts[method]).map(([rank, n]) => ({
      method,
      rank: Number(rank),
      share: n / b.replicates,
    }))
  ).sort((a, c) => methods.indexOf(a.method) - methods.indexOf(c.method) || a.rank - c.rank);
  const spans = methods.map((method) => ({
    method,
    range: b.rank_interval95[method],
    median: b.median_rank[method],
  }));
  const what = `${b.replicates} ${b.exact ? "(all) " : ""}resamples of ${b.level}`;
  const taus = Object.entries(b.tau_counts).map(([tau, n]) => ({
    tau: Number(tau),
    share: n / b.replicates,
  }));
  const method = { domain: methods, label: null, tickFormat: short };
  const beats = methods.flatMap((y) =>
    methods.filter((x) => x !== y).map((x) => ({
      x,
      y,
      value: b.beats[y][x],
      text: show(100 * b.beats[y][x], 0),
    }))
  );
  const place = {
    domain: [0.5, k + 0.5],
    label: "rank",
    ticks: places(k),
    tickFormat: (d: number) => String(d),
  };
  return [{
    svg: svg({
      width: WIDTH,
      height: 60 + k * 30,
      marginLeft: left,
      x: place,
      y: { ...method, grid: true },
      r: { range: [0, 13], domain: [0, 1] },
      color: colour,
      marks: [
        Plot.link(spans, {
          x1: (s) => s.range[0],
          x2: (s) => s.range[1],
          y1: "method",
          y2: "method",
          strokeWidth: 1.2,
        }),
        Plot.dot(shares, { x: "rank", y: "method", r: "share", fill: "method", fillOpacity: 0.8 }),
        Plot.dot(spans, { x: "median", y: "method", symbol: "times", r: 5, stroke: "black" }),
      ],
    }),
    caption:
      `Ranks in ${what}: the area of a blob is its share, the cross the median, the line the 95 % interval.`,
  }, {
    svg: svg({
      width: WIDTH,
      height: 60 + k * 24,
      marginLeft: left,
      x: {
        label: "share of the resamples",
        domain: [0, 1],
        tickFormat: (d: number) => `${show(100 * d, 0)} %`,
      },
      y: method,
      color: { type: "linear", scheme: "Blues", reverse: true, domain: [1 - 0.4 * k, k] },
      marks: [
        Plot.barX(shares, { x: "share", y: "method", fill: "rank", order: "rank", insetLeft: 0.5 }),
        Plot.text(
          shares,
          Plot.stackX({
            x: "share",
            y: "method",
            order: "rank",
            text: (s) => s.share > 0.04 ? show(s.rank, Number.isInteger(s.rank) ? 0 : 1) : "",
            fontSize: 9,
          }),
        ),
      ],
    }),
    caption:
      `Share of the resamples in which a method has each rank (numbers in the bars; dark is better), ${what}.`,
  }, {
    svg: matrix(beats, methods, methods, { xLabel: "than", yLabel: "better" }),
    caption: `Percentage of resamples in which the row method is ranked before the column method, ${what}.`,
  }, {
    svg: svg({
      width: WIDTH,
      height: 180,
      marginLeft: 50,
      x: {
        domain: [Math.min(-0.05, ...taus.map((t) => t.tau - 0.05)), 1.05],
        label: "Kendall's tau-b with the full ranking",
      },
      y: { label: "share", grid: true, domain: [0, Math.max(0.01, ...taus.map((t) => t.share))] },
      marks: [
        Plot.ruleX(taus, { x: "tau", y: "share", y1: 0, strokeWidth: 4, stroke: PALETTE[0] }),
        Plot.ruleX(b.tau_mean === null ? [] : [b.tau_mean], { strokeDasharray: "4 3" }),
        Plot.ruleY([0]),
      ],
    }),
    caption: `Agreement of the resampled rankings with the full one: mean tau ${
      show(b.tau_mean, 3)
    } (dashed), median ${show(b.tau_median, 3)}, ${what}.`,
  }];
}
