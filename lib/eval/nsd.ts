/**
 * Normalised surface distance (surface Dice), area-weighted: the share of both surfaces that lies within a tolerance of
 * the other one. Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and neck anatomy
 * for radiotherapy" (2018). A surface element sits between 2 x 2 x 2 voxels of which some belong to the structure; its
 * area is that of the marching-cubes surface through the mid-points of the edges (Lorensen and Cline 1987).
 */
import type { Overlap } from "./dice.ts";

type Triple = [number, number, number];

/** Distances this close to the tolerance (relative) count as within: spacings come from float32 headers. */
const ROUNDING = 1e-6;

/**
 * NSD of one label of two label maps.
 * @param shape [z, y, x] of both maps
 * @param spacing mm along z, y, x
 * @param overlap counts and box of `label`, from `overlaps`
 * @param tolerance mm, inclusive
 * @returns a fraction; null when the label is in neither map, 0 when it is in one
 */
export function nsd(
  truth: Uint16Array,
  prediction: Uint16Array,
  shape: Triple,
  label: number,
  overlap: Overlap,
  spacing: Triple,
  tolerance: number,
): number | null {
  if (overlap.truth + overlap.prediction === 0) return null;
  if (overlap.truth === 0 || overlap.prediction === 0) return 0;
  // All surface elements of both maps lie on the corners of the voxels of the common box.
  const grid = overlap.high.map((h, i) => h - overlap.low[i] + 1) as Triple;
  const areas = elementAreas(spacing);
  const a = surfaceCodes(truth, shape, label, overlap.low, grid);
  const b = surfaceCodes(prediction, shape, label, overlap.low, grid);
  const limit = (tolerance * (1 + ROUNDING)) ** 2;
  let total = 0;
  let within = 0;
  for (const [from, to] of [[a, b], [b, a]]) {
    const distance = squaredDistances(to, grid, spacing);
    for (let i = 0; i < from.length; i++) {
      const area = areas[from[i]];
      total += area;
      if (distance[i] <= limit) within += area;
    }
  }
  return within / total;
}

/** Which of the 8 voxels around each grid corner have the label: bit 4 dz + 2 dy + dx. 0 and 255 are no surface. */
function surfaceCodes(
  map: Uint16Array,
  [, ny, nx]: Triple,
  label: number,
  low: Triple,
  grid: Triple,
): Uint8Array {
  const [gz, gy, gx] = grid;
  const codes = new Uint8Array(gz * gy * gx);
  for (let z = 0; z < gz - 1; z++) {
    for (let y = 0; y < gy - 1; y++) {
      const row = ((z + low[0]) * ny + y + low[1]) * nx + low[2];
      for (let x = 0; x < gx - 1; x++) {
        if (map[row + x] !== label) continue;
        for (let bit = 0; bit < 8; bit++) {
          const corner = ((z + 1 - (bit >> 2)) * gy + y + 1 - (bit >> 1 & 1)) * gx + x + 1 - (bit & 1);
          codes[corner] |= 1 << bit;
        }
      }
    }
  }
  return codes;
}

/**
 * Squared exact Euclidean distance (mm^2) of each grid point to the nearest one whose code is a surface: lower envelopes
 * of parabolas axis by axis (Felzenszwalb and Huttenlocher 2012).
 */
export function squaredDistances(codes: Uint8Array, grid: Triple, spacing: Triple): Float64Array {
  const out = new Float64Array(codes.length);
  for (let i = 0; i < codes.length; i++) out[i] = codes[i] === 0 || codes[i] === 255 ? Infinity : 0;
  const longest = Math.max(...grid);
  const site = new Int32Array(longest);
  const height = new Float64Array(longest);
  const start = new Float64Array(longest);
  const [gz, gy, gx] = grid;
  for (const [axis, n, stride] of [[2, gx, 1], [1, gy, gx], [0, gz, gx * gy]]) {
    const w = spacing[axis] ** 2;
    for (let line = 0; line < codes.length / n; line++) {
      const first = axis === 2 ? line * n : axis === 0 ? line : Math.floor(line / gx) * gx * gy + line % gx;
      let top = -1;
      for (let q = 0; q < n; q++) {
        const f = out[first + q * stride];
        if (f === Infinity) continue;
        let from = -Infinity;
        while (top >= 0) {
          const p = site[top];
          from = ((f - height[top]) / w + q * q - p * p) / (2 * (q - p));
          if (from > start[top]) break;
          top--;
          from = -Infinity;
        }
        top++;
        site[top] = q;
        height[top] = f;
        start[top] = from;
      }
      if (top < 0) continue;
      for (let q = 0, k = 0; q < n; q++) {
        while (k < top && start[k + 1] < q) k++;
        out[first + q * stride] = w * (q - site[k]) ** 2 + height[k];
      }
    }
  }
  return out;
}

/** Corners of the unit cube by bit 4 z + 2 y + x. */
const CORNERS = Array.from({ length: 8 }, (_, i): Triple => [i >> 2, i >> 1 & 1, i & 1]);
/** The six faces as rings of four corners. */
const FACES = [1, 2, 4].flatMap((axis) => {
  const [u, v] = [1, 2, 4].filter((bit) => bit !== axis);
  return [0, axis].map((side) => [side, side + u, side + u + v, side + v]);
});
let triangles: Triple[][][] | undefined;

/** Area in mm^2 of the surface element of each of the 256 codes; `spacing` in mm along z, y, x. */
export function elementAreas(spacing: Triple): Float64Array {
  triangles ??= Array.from({ length: 256 }, (_, code) => contours(code).flatMap(fan));
  return Float64Array.from(
    triangles,
    (list) => list.reduce((sum, triangle) => sum + area(triangle, spacing), 0),
  );
}

/** Closed polygons through the mid-points of the edges that separate the corners in `code` from the others. */
function contours(code: number): Triple[][] {
  const count = CORNERS.filter((_, i) => code >> i & 1).length;
  const inside = (corner: number) => (code >> corner & 1) === (count > 4 ? 0 : 1);
  const middle = (a: number, b: number) => 8 * Math.min(a, b) + Math.max(a, b);
  const next = new Map<number, number[]>();
  const join = (a: number, b: number) => {
    next.set(a, [...next.get(a) ?? [], b]);
    next.set(b, [...next.get(b) ?? [], a]);
  };
  for (const ring of FACES) {
    const cut = ring.map((a, i) =>
      inside(a) !== inside(ring[(i + 1) % 4]) ? middle(a, ring[(i + 1) % 4]) : -1
    );
    const crossed = cut.filter((c) => c >= 0);
    if (crossed.length === 2) join(crossed[0], crossed[1]);
    // Two opposite corners inside: each is cut off alone.
    if (crossed.length === 4) ring.forEach((a, i) => inside(a) && join(cut[(i + 3) % 4], cut[i]));
  }
  const loops: Triple[][] = [];
  const seen = new Set<number>();
  for (const first of next.keys()) {
    const loop: Triple[] = [];
    for (let at: number | undefined = first; at !== undefined && !seen.has(at);) {
      seen.add(at);
      const [a, b] = [CORNERS[at >> 3], CORNERS[at & 7]];
      loop.push([0, 1, 2].map((i) => (a[i] + b[i]) / 2) as Triple);
      at = next.get(at)!.find((n) => !seen.has(n));
    }
    if (loop.length) loops.push(loop);
  }
  return loops;
}

/**
 * Triangles of a polygon, as a fan from the vertex that gives the largest area in the unit cube: this choice equals the
 * classic tables in all 256 codes and at any spacing (tested).
 */
function fan(loop: Triple[]): Triple[][] {
  const fans = loop.map((apex, i) => {
    const others = [...loop.slice(i + 1), ...loop.slice(0, i)];
    return others.slice(1).map((p, j): Triple[] => [apex, others[j], p]);
  });
  const size = fans.map((list) => list.reduce((sum, triangle) => sum + area(triangle, [1, 1, 1]), 0));
  const best = Math.max(...size);
  return fans[size.findIndex((s) => s > best - 1e-9)];
}

function area([a, b, c]: Triple[], spacing: Triple): number {
  const [u, v] = [b, c].map((p) => p.map((value, i) => (value - a[i]) * spacing[i]));
  return Math.hypot(u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]) / 2;
}
