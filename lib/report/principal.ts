/** Principal components of features, by subspace iteration on the covariance of their channels. */

/** Directions of largest variance. */
export interface Principal {
  mean: Float64Array;
  /** Unit vectors of length `channels`, the largest variance first; their largest entry is positive. */
  components: Float64Array[];
  /** Variance along each component, and of all channels together (population variance). */
  variance: number[];
  total: number;
}

/** Vectors iterated beside the wanted ones: what is asked for converges faster. */
const SPARE = 5;
const SWEEPS = 300;

/** Makes `vectors` orthonormal, in order (Gram-Schmidt, twice). A vector in the span of those before becomes zero. */
function orthonormalise(vectors: Float64Array[]): void {
  vectors.forEach((v, i) => {
    for (let pass = 0; pass < 2; pass++) {
      for (const u of vectors.slice(0, i)) {
        const along = dot(u, v);
        for (let c = 0; c < v.length; c++) v[c] -= along * u[c];
      }
    }
    const length = Math.sqrt(dot(v, v));
    for (let c = 0; c < v.length; c++) v[c] = length > 1e-300 ? v[c] / length : 0;
  });
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Mean and covariance (upper triangle mirrored) of `rows` [n][channels]. */
function moments(rows: Float32Array, channels: number): { mean: Float64Array; covariance: Float64Array[] } {
  const n = rows.length / channels;
  const mean = new Float64Array(channels);
  for (let i = 0; i < rows.length; i++) mean[i % channels] += rows[i] / n;
  const covariance = Array.from({ length: channels }, () => new Float64Array(channels));
  const row = new Float64Array(channels);
  for (let r = 0; r < n; r++) {
    for (let c = 0; c < channels; c++) row[c] = rows[r * channels + c] - mean[c];
    for (let a = 0; a < channels; a++) {
      const [line, value] = [covariance[a], row[a] / n];
      for (let b = a; b < channels; b++) line[b] += value * row[b];
    }
  }
  for (let a = 0; a < channels; a++) for (let b = 0; b < a; b++) covariance[a][b] = covariance[b][a];
  return { mean, covariance };
}

/** Turns `basis` into the eigenvectors of `matrix` within its span (Rayleigh-Ritz, cyclic Jacobi); gives their values. */
function align(basis: Float64Array[], matrix: Float64Array[]): number[] {
  const images = basis.map((v) => apply(matrix, v));
  const small = basis.map((v) => images.map((image) => dot(v, image)));
  const k = basis.length;
  for (let sweep = 0; sweep < 30; sweep++) {
    for (let p = 0; p < k; p++) {
      for (let q = p + 1; q < k; q++) {
        if (Math.abs(small[p][q]) < 1e-300) continue;
        const theta = (small[q][q] - small[p][p]) / (2 * small[p][q]);
        const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const [c, s] = [1 / Math.sqrt(t * t + 1), t / Math.sqrt(t * t + 1)];
        const turn = (x: ArrayLike<number> & Record<number, number>, y: typeof x) => {
          for (let i = 0; i < x.length; i++) [x[i], y[i]] = [c * x[i] - s * y[i], s * x[i] + c * y[i]];
        };
        for (const line of small) [line[p], line[q]] = [c * line[p] - s * line[q], s * line[p] + c * line[q]];
        turn(small[p], small[q]);
        turn(basis[p], basis[q]);
      }
    }
  }
  const values = small.map((line, i) => line[i]);
  const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a]);
  const sorted = order.map((i) => basis[i]);
  sorted.forEach((v, i) => basis[i] = v);
  return order.map((i) => values[i]);
}

function apply(matrix: Float64Array[], v: Float64Array): Float64Array {
  return Float64Array.from(matrix, (line) => dot(line, v));
}

/** The first `count` principal components of `rows` [n][channels]; fewer when there are fewer channels. */
export function principal(rows: Float32Array, channels: number, count = 3): Principal {
  const { mean, covariance } = moments(rows, channels);
  const total = covariance.reduce((sum, line, i) => sum + line[i], 0);
  const wanted = Math.min(count, channels);
  let basis: Float64Array[] = Array.from(
    { length: Math.min(channels, wanted + SPARE) },
    (_, k) => Float64Array.from({ length: channels }, (_, c) => Math.sin((c + 1) * (k + 1) * 1.7 + k)),
  );
  orthonormalise(basis);
  let before: number[] = [];
  let variance: number[] = [];
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    basis = basis.map((v) => apply(covariance, v));
    orthonormalise(basis);
    variance = align(basis, covariance);
    if (variance.slice(0, wanted).every((v, i) => Math.abs(v - before[i]) <= 1e-13 * total)) break;
    before = variance;
  }
  const components = basis.slice(0, wanted);
  for (const v of components) {
    const largest = v.reduce((most, value) => Math.abs(value) > Math.abs(most) ? value : most, 0);
    if (largest < 0) v.forEach((value, c) => v[c] = -value);
  }
  return { mean, components, variance: variance.slice(0, wanted).map((v) => Math.max(0, v)), total };
}

/** Coordinates of `rows` along the components, [component][n]. */
export function project(rows: Float32Array, { mean, components }: Principal): Float32Array[] {
  const channels = mean.length;
  return components.map((v) => {
    const offset = dot(mean, v);
    const out = new Float32Array(rows.length / channels);
    for (let r = 0; r < out.length; r++) {
      let sum = -offset;
      for (let c = 0; c < channels; c++) sum += rows[r * channels + c] * v[c];
      out[r] = sum;
    }
    return out;
  });
}
