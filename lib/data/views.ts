/**
 * Geometry of the views that a network sees: which part of a stored volume, how turned, flipped and scaled, and what two
 * views share. Pure functions of their keys. Edge coordinates throughout: 0 is the outer face of the first voxel, n
 * that of the last one, so voxel i has its centre at i + 1/2.
 */
import { UsageError } from "../errors.ts";
import { Rng } from "../rng.ts";

/** One number per axis: z, y, x. */
export type Triple = [number, number, number];
/** lo z, y, x, then hi z, y, x. */
export type Box = [number, number, number, number, number, number];

/** What a network sees of a volume. */
export interface View {
  /**
   * Voxels of the stored volume that the view covers before it is turned or scaled about the centre that its pair (or
   * it alone) has. Inside the volume on every axis where the patch fits; else the axis lies in its middle.
   */
  box: Box;
  /** 3x4: edge coordinates (z, y, x) of the view, 0..patch, -> edge coordinates of the stored volume. */
  affine: number[][];
}

/** Two views of one volume that share a known part of it. */
export interface Pair {
  seed: number;
  index: number;
  /** Id in the store. */
  volume: string;
  a: View;
  b: View;
  /** The shared part as fractions of each view; the same fraction of both is the same point of the volume. */
  overlap: { a: Box; b: Box };
}

/** A single view and its volume. */
export interface Single {
  volume: string;
  view: View;
}

/**
 * What the published pairs do: boxes of the real-valued share (D09); the first view lower on every axis (D10); both
 * views at 0 of an axis that two crops do not fit, while the box still claims a part of it (D08).
 */
export type PairDefect = "box" | "order" | "fallback";

/** What drawing needs to know of a volume. */
export interface Extent {
  id: string;
  shape: Triple;
}

const AXES = [0, 1, 2] as const;

/** The sides of `--patch 160` or `--patch 32x160x160` (z, y, x). @throws UsageError for anything else */
export function readPatch(text: string): Triple {
  const sides = text.split(/[x,]/).map((side) => /^\d+$/.test(side) ? Number(side) : 0);
  const patch = sides.length === 1 ? [sides[0], sides[0], sides[0]] : sides;
  if (patch.length !== 3 || patch.some((side) => side < 1)) {
    throw new UsageError(`--patch is "${text}"; write a side in voxels (160) or three (32x160x160: z, y, x)`);
  }
  return patch as Triple;
}

/** A sentence on the volumes that the patch does not fit, whose views hold more than the volume; undefined without. */
export function tooSmall(volumes: readonly Extent[], patch: Triple): string | undefined {
  const small = volumes.filter(({ shape }) => AXES.some((d) => shape[d] < patch[d]));
  if (!small.length) return;
  const missing = AXES.map((d) => small.reduce((most, { shape }) => Math.max(most, patch[d] - shape[d]), 0));
  return `${small.length} of ${volumes.length} volumes are smaller than the patch on some axis (largest missing: ${
    missing.join(" x ")
  } voxels of ${patch.join(" x ")}); there a view is padded, and both views of a pair lie alike`;
}

/** Rotation by angles (radians) about z, then y, then x, on (z, y, x) coordinates. */
export function rotation(angles: number[]): number[][] {
  let m = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  for (const axis of AXES) {
    const [i, j] = AXES.filter((d) => d !== axis);
    const [s, c] = [Math.sin(angles[axis]), Math.cos(angles[axis])];
    m = m.map((row) => {
      const out = [...row];
      [out[i], out[j]] = [row[i] * c + row[j] * s, row[j] * c - row[i] * s];
      return out;
    });
  }
  return m;
}

/** What happens to a whole region before views are cut from it. */
export interface Change {
  flip: boolean[];
  /** 3x3, rotation times scale; none: neither. */
  turn?: number[][];
}

/**
 * Mirror p 0.5 per axis; rotation p 0.2, each angle U(-range, range); scale p 0.2, half U(0.7, 1), half U(1, 1.4),
 * above 1 zooms out (the spatial augmentation of nnssl, CVA and nnU-Net).
 */
export function drawChange(rng: Rng, range: number, augment: boolean): Change {
  const flip = AXES.map(() => rng.uniform() < 0.5);
  const turns = rng.uniform() < 0.2;
  const angles = AXES.map(() => rng.uniform(-range, range));
  const scales = rng.uniform() < 0.2;
  const [low, high] = rng.uniform() < 0.5 ? [0.7, 1] : [1, 1.4];
  const factor = rng.uniform(low, high);
  if (!augment) return { flip: [false, false, false] };
  if (!turns && !scales) return { flip };
  const matrix = rotation(turns ? angles : [0, 0, 0]);
  return { flip, turn: matrix.map((row) => row.map((v) => scales ? v * factor : v)) };
}

/** The view of side `patch` whose first voxel is `start`, mirrored in itself, then turned about `centre`. */
export function makeView(start: number[], patch: Triple, centre: number[], { flip, turn }: Change): View {
  const box = [...start, ...start.map((s, d) => s + patch[d])] as Box;
  const sign = flip.map((f) => f ? -1 : 1);
  const from = AXES.map((d) => flip[d] ? box[d + 3] : box[d]);
  const affine = AXES.map((r) => {
    if (!turn) return [...AXES.map((c) => r === c ? sign[c] : 0), from[r]];
    const offset = AXES.reduce((sum, c) => sum + turn[r][c] * (from[c] - centre[c]), centre[r]);
    return [...AXES.map((c) => turn[r][c] * sign[c]), offset];
  });
  return { box, affine };
}

/**
 * Share of the patch that overlaps, per axis. The share t ~ U(0.4, 0.8) of the patch is spread over the axes by
 * w ~ Dirichlet(1, 1, 1): t^w (CVA). Two patches must fit the volume on every axis, so shares
 * that do not fit are drawn again; where no draw fits, the axes give in proportion to the room they have (D08).
 */
function drawOverlap(rng: Rng, shape: Triple, patch: Triple, fit: boolean): number[] {
  const least = AXES.map((d) => Math.min(1, Math.max(2 * patch[d] - shape[d], 1) / patch[d]));
  const t = rng.uniform(0.4, 0.8);
  let sides: number[] | undefined;
  for (let tries = 0; tries < 64; tries++) {
    const e = AXES.map(() => -Math.log(1 - rng.uniform()));
    const f = e.map((v) => t ** (v / (e[0] + e[1] + e[2])));
    if (!fit || f.every((v, d) => v >= least[d])) {
      sides = f;
      break;
    }
  }
  const room = least[0] * least[1] * least[2];
  return sides ?? least.map((v) => room < 1 ? v ** Math.min(1, Math.log(t) / Math.log(room)) : 1);
}

/** First voxel of a span of `side` in an axis of `length`: uniform where it fits, else the axis is in its middle. */
export function drawStart(rng: Rng, length: number, side: number): number {
  return side <= length ? rng.integer(length - side + 1) : Math.floor((length - side) / 2);
}

/** Whether the published code finds room for two crops that share `share` of an axis. */
function foundRoom(share: number, length: number, side: number): boolean {
  const o = Math.floor(share * side);
  const half = Math.floor(o / 2);
  return length - (side - o) - half - 1 > half + (side - o) + 1;
}

/** `box` (in the volume, before any turn) as fractions of a view. Exact: integers over the side of the patch. */
function fractions(box: number[], view: View, flip: boolean[]): Box {
  const at = (d: number, end: 0 | 3): number => {
    const side = view.box[d + 3] - view.box[d];
    return (flip[d] ? view.box[d + 3] - box[d + 3 - end] : box[d + end] - view.box[d]) / side;
  };
  return [at(0, 0), at(1, 0), at(2, 0), at(0, 3), at(1, 3), at(2, 3)];
}

/**
 * Pair `index` of the run of `seed` from `volumes` (sorted by id), with replacement. Both views share mirror, rotation
 * (full turns) and scale, about the middle of what they cover together; which view lies lower is drawn per axis (D10).
 */
export function drawPair(
  seed: number,
  index: number,
  volumes: readonly Extent[],
  patch: Triple,
  augment = true,
  defects: readonly PairDefect[] = [],
): Pair {
  const rng = new Rng(seed, "pair", index);
  const { id, shape } = volumes[rng.integer(volumes.length)];
  const change = drawChange(rng, Math.PI, augment);
  const falls = defects.includes("fallback");
  const shares = drawOverlap(rng, shape, patch, !falls);
  const fallen = AXES.map((d) => falls && !foundRoom(shares[d], shape[d], patch[d]));
  const sides = shares.map((f, d) => {
    if (fallen[d]) return patch[d];
    const [exact, least] = [f * patch[d], Math.max(2 * patch[d] - shape[d], 1)];
    if (defects.includes("box")) return 2 * Math.max(Math.floor(Math.floor(exact) / 2), Math.ceil(least / 2));
    return Math.min(patch[d], Math.max(least, Math.round(exact)));
  });
  const union = sides.map((o, d) => 2 * patch[d] - o);
  const low = union.map((side, d) => drawStart(rng, shape[d], side)).map((s, d) =>
    fallen[d] ? Math.min(s, 0) : s
  );
  const high = low.map((s, d) => s + patch[d] - sides[d]);
  const lower = AXES.map(() => rng.uniform() < 0.5 || defects.includes("order"));
  const centre = low.map((s, d) => s + union[d] / 2);
  const a = makeView(AXES.map((d) => lower[d] ? low[d] : high[d]), patch, centre, change);
  const b = makeView(AXES.map((d) => lower[d] ? high[d] : low[d]), patch, centre, change);
  const common = [...high, ...low.map((s, d) => s + patch[d])];
  const boxOf = (view: View, first: boolean): Box => {
    const box = fractions(common, view, change.flip);
    for (const d of AXES.filter((d) => fallen[d] || defects.includes("box"))) {
      [box[d], box[d + 3]] = (first === lower[d]) !== change.flip[d] ? [1 - shares[d], 1] : [0, shares[d]];
    }
    return box;
  };
  const overlap = { a: boxOf(a, true), b: boxOf(b, false) };
  return { seed, index, volume: id, a, b, overlap };
}

/** Single view `index` of the run of `seed`: a random crop, mirrored, rotated by up to 30 degrees, scaled. */
export function drawSingle(
  seed: number,
  index: number,
  volumes: readonly Extent[],
  patch: Triple,
  augment = true,
): Single {
  const rng = new Rng(seed, "single", index);
  const { id, shape } = volumes[rng.integer(volumes.length)];
  const change = drawChange(rng, Math.PI / 6, augment);
  const start = patch.map((side, d) => drawStart(rng, shape[d], side));
  return { volume: id, view: makeView(start, patch, start.map((s, d) => s + patch[d] / 2), change) };
}

/** A point of a view in edge coordinates, in the stored volume. */
export function place({ affine }: View, point: readonly number[]): Triple {
  return affine.map((r) => r[0] * point[0] + r[1] * point[1] + r[2] * point[2] + r[3]) as Triple;
}

/** Side of the view's patch per axis. */
export function sideOf({ box }: View): Triple {
  return [box[3] - box[0], box[4] - box[1], box[5] - box[2]];
}
