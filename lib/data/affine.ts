/** Voxel-to-world matrices: spacing, determinant, quaternions (nifti1.h, method 2). */

/** mm along z, y, x of a 4x4 (or 3x4) voxel (x, y, z) -> mm matrix: its column norms. */
export function spacingOf(affine: number[][]): [number, number, number] {
  const norm = (j: number) => Math.hypot(affine[0][j], affine[1][j], affine[2][j]);
  return [norm(2), norm(1), norm(0)];
}

/** The 3x3 rotation of a NIfTI quaternion (a >= 0 is implied); one longer than 1 is normalised. */
export function fromQuaternion(b: number, c: number, d: number): number[][] {
  const square = b * b + c * c + d * d;
  // Float32 leaves 1e-7 of a half turn's a = 0; its root would show, so it counts as 0 (as in nifti1_io.c).
  const half = 1 - square < 1e-7;
  const a = half ? 0 : Math.sqrt(1 - square);
  const n = half ? Math.sqrt(square) : 1;
  [b, c, d] = [b / n, c / n, d / n];
  return [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
  ];
}

/** Determinant of the upper left 3x3 of a matrix. */
export function determinant([[a, b, c], [d, e, f], [g, h, i]]: number[][]): number {
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

/** Rotation of an affine as a quaternion (b, c, d) with a >= 0, and the sign of its third axis; none when sheared. */
export function toQuaternion(affine: number[][], norms: number[]): { qfac: number; quaternion?: number[] } {
  const qfac = determinant(affine) < 0 ? -1 : 1;
  const r = affine.slice(0, 3).map((row) =>
    row.slice(0, 3).map((v, j) => v / norms[j] * (j === 2 ? qfac : 1))
  );
  const dot = (i: number, j: number) => r[0][i] * r[0][j] + r[1][i] * r[1][j] + r[2][i] * r[2][j];
  if (Math.max(Math.abs(dot(0, 1)), Math.abs(dot(0, 2)), Math.abs(dot(1, 2))) > 1e-4) return { qfac };
  // Squares of 2a, 2b, 2c, 2d; the largest is safe to divide by.
  const squares = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]].map(([p, q, s]) =>
    Math.max(0, 1 + p * r[0][0] + q * r[1][1] + s * r[2][2])
  );
  const k = squares.indexOf(Math.max(...squares));
  const [ab, ac, ad] = [r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]];
  const [bc, bd, cd] = [r[1][0] + r[0][1], r[2][0] + r[0][2], r[2][1] + r[1][2]];
  const table = [[squares[0], ab, ac, ad], [ab, squares[1], bc, bd], [ac, bc, squares[2], cd], [
    ad,
    bd,
    cd,
    squares[3],
  ]];
  const q = table[k].map((v) => v / (2 * Math.sqrt(squares[k])));
  return { qfac, quaternion: q.slice(1).map((v) => q[0] < 0 ? -v : v) };
}
