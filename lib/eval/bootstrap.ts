/** Paired bootstrap of a whole ranking scheme: over cases inside each dataset, or over the datasets of a table. */
import type { Competition } from "./columns.ts";
import { kendall, quantile, settle } from "./ranks.ts";
import type { Draw, Plan } from "./schemes.ts";

/** What the replicates said. Frequencies are counts of `replicates`. */
export interface Bootstrap {
  level: "cases" | "datasets";
  exact: boolean;
  replicates: number;
  rank_counts: Record<string, Record<string, number>>;
  p_best: Record<string, { strict: number; shared: number; fractional: number }>;
  p_top3: Record<string, number>;
  median_rank: Record<string, number>;
  rank_interval95: Record<string, [number, number]>;
  /** beats[a][b]: share of replicates in which a is ranked before b. */
  beats: Record<string, Record<string, number>>;
  tau_mean: number | null;
  tau_median: number | null;
  tau_quartiles: [number, number] | null;
  tau_counts: Record<string, number>;
  /** Replicates in which all methods tie, so that tau does not exist. */
  tau_undefined: number;
  /** 95 % simulation error of a frequency of one half; 0 when exact. */
  simulation_error: number;
  /** Per unit and method: 95 % percentile interval of the summary (type 7); null where there is none. */
  intervals: ([number, number] | null)[][];
  /** Replicates in which a method had no rank at all. */
  unranked: number;
}

/** A stream of uniform integers below n, a function of the text alone (FNV-1a into sfc32). */
export function stream(text: string): (n: number) => number {
  const hash = (salt: number) => {
    let h = (2166136261 ^ salt) >>> 0;
    for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    return h ^ (h >>> 13);
  };
  let a = hash(1), b = hash(2), c = hash(3), counter = 1;
  const next = () => {
    const t = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 12; i++) next();
  return (n) => Math.floor(next() / 4294967296 * n);
}

const LIMIT = 65536;

/** All draws: every choice of n items out of n for every entry of `sizes`, as counts. */
function* enumerate(sizes: readonly number[]): Generator<Uint32Array[]> {
  const odometer = sizes.map((n) => new Uint32Array(n));
  while (true) {
    yield odometer.map((chosen, d) => {
      const counts = new Uint32Array(sizes[d]);
      for (const i of chosen) counts[i]++;
      return counts;
    });
    let d = 0, i = 0;
    while (d < sizes.length && ++odometer[d][i] === sizes[d]) {
      odometer[d][i] = 0;
      if (++i === sizes[d]) {
        d++;
        i = 0;
      }
    }
    if (d === sizes.length) return;
  }
}

/** Puts the value that stands at `at` in the sorted array there, none above it before and none below it after. */
function select(values: Float64Array, at: number, low = 0): void {
  for (let high = values.length - 1; low < high;) {
    const pivot = values[(low + high) >> 1];
    let [i, j] = [low, high];
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const v = values[i];
      values[i++] = values[j];
      values[j--] = v;
    }
    if (at <= j) high = j;
    else if (at >= i) low = i;
    else break;
  }
}

/** counts[index[i]] for every i. */
function pick(counts: Uint32Array, index: Uint32Array, same: boolean): Uint32Array {
  if (same) return counts;
  const out = new Uint32Array(index.length);
  for (let i = 0; i < index.length; i++) out[i] = counts[index[i]];
  return out;
}

function sample(
  sizes: readonly number[],
  names: readonly string[],
  seed: number,
  replicate: number,
): Uint32Array[] {
  return sizes.map((n, d) => {
    const counts = new Uint32Array(n);
    if (n === 1) counts[0] = 1;
    else {
      const draw = stream(`${seed}|${replicate}|${names[d]}`);
      for (let i = 0; i < n; i++) counts[draw(n)]++;
    }
    return counts;
  });
}

/**
 * Resamples `c` with replacement and reruns `plan`: all draws when there are at most `limit`, else `replicates` of them.
 * A draw is the same for all methods and metrics and a function of (seed, replicate, dataset name) alone.
 */
export function bootstrap(
  c: Competition,
  plan: Plan,
  replicates: number,
  seed: number,
  level: "cases" | "datasets" = c.table ? "datasets" : "cases",
  limit = LIMIT,
): Bootstrap {
  const { methods, datasets } = c, D = datasets.length;
  const sizes = level === "cases" ? datasets.map((d) => d.subjects) : [D];
  const names = level === "cases" ? datasets.map((d) => d.name) : ["\u001fdatasets"];
  const exact = sizes.reduce((s, n) => s * n ** n, 1) <= limit;
  const alone = datasets.map((d) => d.subject.every((s, i) => s === i)); // every case a subject of its own
  const once = new Uint32Array(D).fill(1), none = datasets.map(() => null);
  const full = plan.run().places;
  const places: Float64Array[] = [];
  const scores = plan.units.map(() => methods.map(() => [] as number[]));
  const draws = exact ? enumerate(sizes) : function* () {
    for (let r = 0; r < replicates; r++) yield sample(sizes, names, seed, r);
  }();
  for (const counts of draws) {
    const draw: Draw = level === "datasets" ? { datasets: counts[0], cases: none } : {
      datasets: once,
      cases: datasets.map((d, i) => pick(counts[i], d.subject, alone[i])),
    };
    places.push(plan.run(draw).places);
    plan.units.forEach((u, i) => {
      if (!u.scores || (level === "datasets" && u.dataset >= 0)) return;
      const blockCounts = u.dataset < 0
        ? Array.from(u.blockDatasets, (d) => draw.datasets[d])
        : draw.cases[u.dataset] ?? undefined;
      const found = u.scores(blockCounts);
      for (let m = 0; m < found.length; m++) if (!Number.isNaN(found[m])) scores[i][m].push(found[m]);
    });
  }
  return {
    ...summarise(methods, places, full),
    level,
    exact,
    replicates: places.length,
    simulation_error: exact ? 0 : 0.98 / Math.sqrt(places.length),
    intervals: scores.map((unit) => unit.map((values) => values.length ? interval(values) : null)),
    unranked: places.filter((p) => p.some(Number.isNaN)).length,
  };

  function interval(values: number[]): [number, number] {
    const found = Float64Array.from(values);
    for (const p of [0.025, 0.975]) {
      const at = Math.floor((found.length - 1) * p);
      select(found, at);
      select(found, Math.min(at + 1, found.length - 1), at);
    }
    return [settle(quantile(found, 0.025)), settle(quantile(found, 0.975))];
  }
}

/** Frequencies of the replicates' places [replicates][k] and their agreement with the full ranking. */
function summarise(methods: readonly string[], places: readonly Float64Array[], full: Float64Array) {
  const k = methods.length, B = places.length;
  const counts = methods.map(() => new Map<number, number>());
  const best = methods.map(() => ({ strict: 0, shared: 0, fractional: 0 }));
  const top3 = new Float64Array(k), taus: number[] = [];
  const before = methods.map(() => new Float64Array(k));
  let tau_undefined = 0;
  for (const place of places) {
    const first = Math.min(...place.filter((p) => !Number.isNaN(p)));
    const leaders = place.reduce((s, p) => s + (p === first ? 1 : 0), 0);
    for (let m = 0; m < k; m++) {
      if (Number.isNaN(place[m])) continue;
      counts[m].set(place[m], (counts[m].get(place[m]) ?? 0) + 1);
      if (place[m] === first) {
        best[m].shared += 1 / B;
        best[m].fractional += 1 / leaders / B;
        if (leaders === 1) best[m].strict += 1 / B;
      }
      if (place[m] <= 3) top3[m] += 1 / B;
      for (let j = 0; j < k; j++) if (place[m] < place[j]) before[m][j]++;
    }
    const tau = place.some(Number.isNaN) ? null : kendall(place, full);
    if (tau === null) tau_undefined++;
    else taus.push(settle(tau));
  }
  const sorted = counts.map((map) => [...map].sort((a, b) => a[0] - b[0]));
  const inverse = (m: number, p: number) => {
    const total = sorted[m].reduce((s, [, n]) => s + n, 0);
    let sum = 0;
    for (const [place, n] of sorted[m]) if ((sum += n) >= p * total - 1e-9) return place;
    return NaN;
  };
  const each = <T>(f: (m: number) => T) =>
    Object.fromEntries(methods.map((name, m) => [name, f(m)])) as Record<string, T>;
  const ordered = Float64Array.from(taus).sort();
  const tau_counts: Record<string, number> = {};
  for (const tau of ordered) tau_counts[`${tau}`] = (tau_counts[`${tau}`] ?? 0) + 1;
  return {
    rank_counts: each((m) => Object.fromEntries(sorted[m].map(([place, n]) => [`${settle(place)}`, n]))),
    p_best: each((m) => ({
      strict: settle(best[m].strict),
      shared: settle(best[m].shared),
      fractional: settle(best[m].fractional),
    })),
    p_top3: each((m) => settle(top3[m])),
    median_rank: each((m) => inverse(m, 0.5)),
    rank_interval95: each((m) => [inverse(m, 0.025), inverse(m, 0.975)] as [number, number]),
    beats: each((m) =>
      Object.fromEntries(methods.flatMap((name, j) => j === m ? [] : [[name, settle(before[m][j] / B)]]))
    ),
    tau_mean: taus.length ? settle(taus.reduce((s, t) => s + t, 0) / taus.length) : null,
    tau_median: taus.length ? quantile(ordered, 0.5) : null,
    tau_quartiles: taus.length
      ? [quantile(ordered, 0.25), quantile(ordered, 0.75)] as [number, number]
      : null,
    tau_counts,
    tau_undefined,
  };
}
