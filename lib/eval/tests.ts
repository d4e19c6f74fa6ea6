/** Significance tests on ranks and paired differences (Demsar 2006; Holm 1979; Pratt 1959). */
import {
  chi2Upper,
  fUpper,
  normalCdf,
  studentizedRangeQuantile,
  studentizedRangeUpper,
} from "./distributions.ts";
import { rank, settle } from "./ranks.ts";

/** Result of the signed-rank test. `W` is the rank sum of the positive differences. */
export interface Wilcoxon {
  W: number;
  W_minus: number;
  n: number;
  zeros: number;
  exact: boolean;
  p: number;
  p_greater: number;
  p_less: number;
  rank_biserial: number;
}

export interface WilcoxonOptions {
  /** How often each difference occurs (bootstrap); default once. */
  counts?: ArrayLike<number>;
  zeros?: "wilcox" | "pratt";
  /** auto: exact up to 50 informative pairs. Pratt's variant is always normal. */
  method?: "auto" | "exact" | "normal";
  continuity?: boolean;
}

/** Differences settled and sorted by size, so that repeated tests with other counts skip the sort. */
export function bySize(differences: ArrayLike<number>): { d: Float64Array; index: Uint32Array } {
  const settled = Array.from(differences, settle);
  const index = Uint32Array.from(settled.map((_, i) => i).filter((i) => !Number.isNaN(settled[i])))
    .sort((a, b) => Math.abs(settled[a]) - Math.abs(settled[b]) || a - b);
  return { d: Float64Array.from(index, (i) => settled[i]), index };
}

/** Paired signed-rank test; positive differences speak for the first method. NaN pairs are left out. */
export function wilcoxon(
  differences: ArrayLike<number> | ReturnType<typeof bySize>,
  options: WilcoxonOptions = {},
): Wilcoxon {
  const { d, index } = "index" in differences ? differences : bySize(differences);
  const { counts, zeros = "wilcox", continuity = true } = options;
  const sizes: number[] = [], places: number[] = [];
  let dropped = 0, before = 0, n = 0, W2 = 0, total2 = 0, ties = 0;
  for (let from = 0, to = 0; from < d.length; from = to) {
    const size = Math.abs(d[from]);
    let total = 0, positive = 0;
    for (; to < d.length && Math.abs(d[to]) === size; to++) {
      const count = counts ? counts[index[to]] : 1;
      total += count;
      if (d[to] > 0) positive += count;
    }
    if (size === 0) {
      dropped = total;
      if (zeros === "pratt") before = total;
    } else if (total) {
      const rank2 = 2 * before + total + 1;
      sizes.push(total);
      places.push(rank2);
      before += total;
      n += total;
      W2 += positive * rank2;
      total2 += total * rank2;
      ties += total ** 3 - total;
    }
  }
  const W = W2 / 2, W_minus = (total2 - W2) / 2;
  const exact = zeros !== "pratt" && (options.method === "exact" || (options.method !== "normal" && n <= 50));
  let p_greater = 1, p_less = 1;
  if (n && exact) {
    const ways = new Float64Array(total2 + 1);
    ways[0] = 1;
    let reach = 0;
    for (const [g, rank2] of places.entries()) {
      for (let i = 0; i < sizes[g]; i++) {
        for (let s = reach; s >= 0; s--) ways[s + rank2] += ways[s];
        reach += rank2;
      }
    }
    let low = 0, high = 0;
    for (let s = 0; s <= total2; s++) {
      if (s >= W2) high += ways[s];
      if (s <= W2) low += ways[s];
    }
    p_greater = high / 2 ** n;
    p_less = low / 2 ** n;
  } else if (n) {
    const z0 = zeros === "pratt" ? dropped : 0, m = n + z0;
    const mean = (m * (m + 1) - z0 * (z0 + 1)) / 4;
    const sd = Math.sqrt((m * (m + 1) * (2 * m + 1) - z0 * (z0 + 1) * (2 * z0 + 1)) / 24 - ties / 48);
    const half = continuity ? 0.5 : 0;
    p_greater = normalCdf(-(W - mean - half) / sd);
    p_less = normalCdf((W - mean + half) / sd);
  }
  const p = Math.min(1, 2 * Math.min(p_greater, p_less));
  return {
    W,
    W_minus,
    n,
    zeros: dropped,
    exact,
    p,
    p_greater,
    p_less,
    rank_biserial: n ? (W - W_minus) / (W + W_minus) : 0,
  };
}

/** Holm's step-down adjustment of one declared family of p values, in the order given. */
export function holm(p: readonly number[]): number[] {
  const out = new Array<number>(p.length);
  let running = 0;
  p.map((_, i) => i).sort((a, b) => p[a] - p[b]).forEach((i, j) => {
    running = Math.max(running, Math.min(1, p[i] * (p.length - j)));
    out[i] = running;
  });
  return out;
}

/** Result of Friedman's test with the critical differences that go with it. */
export interface Friedman {
  n: number;
  k: number;
  mean_ranks: number[];
  chi2: number;
  p: number;
  chi2_uncorrected: number;
  /** null means infinite: the blocks agree perfectly and p is 0. */
  iman_davenport_F: number | null;
  iman_davenport_p: number;
  cd05: number;
  cd10: number;
}

/** Friedman over `blocks` [N][k], larger is better, none missing; N and k at least 2. */
export function friedman(blocks: readonly ArrayLike<number>[]): Friedman {
  const n = blocks.length, k = blocks[0].length;
  const twice = new Float64Array(k);
  let ties = 0;
  for (const block of blocks) {
    const ranks = rank(block);
    const sizes = new Map<number, number>();
    for (let i = 0; i < k; i++) {
      twice[i] += 2 * ranks[i];
      sizes.set(ranks[i], (sizes.get(ranks[i]) ?? 0) + 1);
    }
    for (const t of sizes.values()) ties += t ** 3 - t;
  }
  const mean_ranks = Array.from(twice, (t) => t / (2 * n));
  const spread = mean_ranks.reduce((s, r) => s + (r - (k + 1) / 2) ** 2, 0);
  const chi2_uncorrected = 12 * n / (k * (k + 1)) * spread;
  const correction = 1 - ties / (n * (k ** 3 - k));
  const chi2 = correction > 1e-12 ? settle(chi2_uncorrected / correction) : 0;
  const rest = settle(n * (k - 1) - chi2);
  const F = chi2 === 0 ? 0 : rest <= 0 ? Infinity : (n - 1) * chi2 / rest;
  return {
    n,
    k,
    mean_ranks,
    chi2,
    p: chi2Upper(chi2, k - 1),
    chi2_uncorrected,
    iman_davenport_F: F === Infinity ? null : F,
    iman_davenport_p: fUpper(F, k - 1, (k - 1) * (n - 1)),
    cd05: criticalDifference(k, n, 0.05),
    cd10: criticalDifference(k, n, 0.1),
  };
}

/** Nemenyi's critical difference of mean ranks: q / sqrt(2) * sqrt(k(k+1)/(6N)). */
export function criticalDifference(k: number, n: number, alpha: number): number {
  return studentizedRangeQuantile(alpha, k) / Math.SQRT2 * Math.sqrt(k * (k + 1) / (6 * n));
}

/** Nemenyi's p for two mean ranks that differ by `difference`. */
export function nemenyi(difference: number, k: number, n: number): number {
  return studentizedRangeUpper(Math.abs(difference) / Math.sqrt(k * (k + 1) / (6 * n)) * Math.SQRT2, k);
}

/** Maximal runs (as index lists, best first) of neighbours whose extreme mean ranks differ by less than `cd`. */
export function cliques(meanRanks: readonly number[], cd: number): number[][] {
  const order = meanRanks.map((_, i) => i).sort((a, b) => meanRanks[a] - meanRanks[b] || a - b);
  const runs: number[][] = [];
  let reached = 0;
  for (let from = 0; from < order.length; from++) {
    let to = from;
    while (to + 1 < order.length && meanRanks[order[to + 1]] - meanRanks[order[from]] < cd) to++;
    if (to > from && to > reached) runs.push(order.slice(from, to + 1));
    reached = Math.max(reached, to);
  }
  return runs;
}
