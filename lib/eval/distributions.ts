/** Distribution functions needed by the tests. Formulas: Abramowitz and Stegun 6.1, 6.5, 26.5. */

/** log Gamma(x), x > 0 (Stirling series after shifting x above 10; error below 1e-13). */
function logGamma(x: number): number {
  let shift = 0;
  while (x < 10) shift += Math.log(x++);
  const y = 1 / (x * x);
  const series =
    (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y * (1 / 1188 - y * 691 / 360360))))) / x;
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

/** Evaluates b0 + a1/(b1 + a2/(b2 + ...)) by the modified Lentz recursion. */
function continuedFraction(b0: number, term: (i: number) => [a: number, b: number]): number {
  const tiny = 1e-300;
  let f = b0 || tiny, c = f, d = 0;
  for (let i = 1; i < 1000; i++) {
    const [a, b] = term(i);
    d = 1 / (b + a * d || tiny);
    c = b + a / c || tiny;
    f *= c * d;
    if (Math.abs(c * d - 1) < 1e-15) break;
  }
  return f;
}

/** Upper regularised incomplete gamma function Q(a, x). */
function gammaUpper(a: number, x: number): number {
  if (x <= 0) return 1;
  const scale = Math.exp(a * Math.log(x) - x - logGamma(a));
  if (x < a + 1) {
    let term = 1 / a, sum = term;
    for (let n = 1; n < 1000 && term > sum * 1e-17; n++) sum += term *= x / (a + n);
    return 1 - sum * scale;
  }
  return scale / continuedFraction(x + 1 - a, (i) => [-i * (i - a), x + 2 * i + 1 - a]);
}

/** Regularised incomplete beta function I_x(a, b). */
function betaRegularised(x: number, a: number, b: number): number {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - betaRegularised(1 - x, b, a);
  const front =
    Math.exp(a * Math.log(x) + b * Math.log(1 - x) + logGamma(a + b) - logGamma(a) - logGamma(b)) / a;
  const fraction = continuedFraction(1, (i) => {
    const m = i >> 1;
    if (i % 2) return [-(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), 1];
    return [m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), 1];
  });
  return front / fraction;
}

/** Standard normal P(Z <= z). */
export function normalCdf(z: number): number {
  const tail = 0.5 * gammaUpper(0.5, z * z / 2);
  return z > 0 ? 1 - tail : tail;
}

/** P(X > x) of chi-square with `df` degrees of freedom. */
export const chi2Upper = (x: number, df: number): number => gammaUpper(df / 2, x / 2);

/** P(X > x) of Fisher's F. Infinite x gives 0. */
export function fUpper(x: number, df1: number, df2: number): number {
  return x === Infinity ? 0 : betaRegularised(df2 / (df2 + df1 * Math.max(x, 0)), df2 / 2, df1 / 2);
}

const STEP = 1 / 64, HALF = 8 * 64;
const DENSITY = Float64Array.from({ length: 2 * HALF + 1 }, (_, i) => {
  const z = (i - HALF) * STEP;
  return Math.exp(-z * z / 2) / Math.sqrt(2 * Math.PI);
});
const CDF = Float64Array.from(DENSITY, (_, i) => normalCdf((i - HALF) * STEP));

/** P(Q > q) of the studentized range of k normals, infinite degrees of freedom (trapezoid rule, error below 1e-10). */
export function studentizedRangeUpper(q: number, k: number): number {
  if (q <= 0) return 1;
  let sum = 0;
  for (let i = 0; i < DENSITY.length; i++) {
    sum += DENSITY[i] * (CDF[i] - normalCdf((i - HALF) * STEP - q)) ** (k - 1);
  }
  return Math.min(1, Math.max(0, 1 - k * sum * STEP));
}

/** The q with P(Q > q) = alpha, by bisection. */
export function studentizedRangeQuantile(alpha: number, k: number): number {
  let low = 0, high = 20;
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (studentizedRangeUpper(middle, k) > alpha) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
