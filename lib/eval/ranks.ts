/** Ranks of one column, their display, and the agreement of two rankings. Rank 1 is best; NaN means absent. */

export type Ties = "average" | "min" | "max" | "dense";

/** Rounds to 9 decimals, the same way on both sides of zero: values equal after this are tied. */
export const settle = (v: number): number => Math.sign(v) * Math.round(Math.abs(v) * 1e9) / 1e9;

/** Working memory of `rank`, which a bootstrap calls a hundred thousand times. */
let scratch = { settled: new Float64Array(32), order: new Uint32Array(32) };

/**
 * Ranks of `values` [k], larger is better; NaN gets no rank (NaN).
 * With `worst`, absent entries share the places after the last present one instead.
 */
export function rank(values: ArrayLike<number>, ties: Ties = "average", worst = false): Float64Array {
  const k = values.length, out = new Float64Array(k).fill(NaN);
  if (scratch.settled.length < k) scratch = { settled: new Float64Array(k), order: new Uint32Array(k) };
  const { settled, order } = scratch;
  let present = 0;
  for (let i = 0; i < k; i++) {
    const value = settled[i] = settle(values[i]);
    if (Number.isNaN(value)) continue;
    let at = present++; // few methods: each is moved to its place
    for (; at > 0 && settled[order[at - 1]] < value; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  const place = (from: number, to: number, level: number) =>
    ties === "average" ? (from + to + 1) / 2 : ties === "min" ? from + 1 : ties === "max" ? to : level;
  let level = 0;
  for (let from = 0, to = 0; from < present; from = to) {
    while (to < present && settled[order[to]] === settled[order[from]]) to++;
    level++;
    for (let i = from; i < to; i++) out[order[i]] = place(from, to, level);
  }
  if (worst && present < k) {
    const shared = place(present, k, level + 1);
    for (let i = 0; i < k; i++) if (Number.isNaN(out[i])) out[i] = shared;
  }
  return out;
}

/** Ranks where smaller is better: mean ranks to places. */
export const rankAscending = (values: ArrayLike<number>, ties: Ties = "average"): Float64Array =>
  rank(Array.from(values, (v) => -v), ties);

/** `value` with `digits` decimals, halves away from zero: 41/40 gives "1.03" where toFixed gives "1.02". */
export function show(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const scale = 10 ** digits;
  return (Math.sign(value) * Math.floor(Math.abs(value) * scale + 0.5 + 1e-9) / scale).toFixed(digits);
}

/** Kendall's tau-b of two rankings; null when one of them is all ties. */
export function kendall(a: ArrayLike<number>, b: ArrayLike<number>): number | null {
  // The sign of a settled difference.
  const sign = (v: number) => v * 1e9 >= 0.5 ? 1 : v * 1e9 <= -0.5 ? -1 : v - v;
  let agree = 0, inA = 0, inB = 0;
  for (let i = 0; i < a.length; i++) {
    for (let j = 0; j < i; j++) {
      const x = sign(a[i] - a[j]), y = sign(b[i] - b[j]);
      agree += x * y;
      inA += x * x;
      inB += y * y;
    }
  }
  return inA && inB ? agree / Math.sqrt(inA * inB) : null;
}

/** Quantile of type 7 (linear interpolation) of a sorted array. */
export function quantile(sorted: ArrayLike<number>, p: number): number {
  const at = (sorted.length - 1) * p, low = Math.floor(at);
  const next = sorted[Math.min(low + 1, sorted.length - 1)];
  return sorted[low] + (at - low) * (next - sorted[low]);
}

/** Text order with numbers in numeric order (D2 before D10), the same on every machine. */
export function compareNames(a: string, b: string): number {
  const split = (s: string) => s.match(/\d+|\D+/g) ?? [];
  const x = split(a), y = split(b);
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    if (x[i] === y[i]) continue;
    const numeric = Number(x[i]) - Number(y[i]);
    if (Number.isFinite(numeric) && numeric !== 0) return numeric;
    return x[i] < y[i] ? -1 : 1;
  }
  return x.length - y.length;
}
