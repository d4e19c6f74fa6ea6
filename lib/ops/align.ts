/**
 * Alignment of two views: features of the same physical points, sampled inside the common box of each view
 * (consistent view alignment; ROI align of He et al. 2017 without quantisation).
 */
import { type Side, type Tensor } from "../tensor.ts";
import { type AxisMatrix, axisMatrix, dense, separable, windows } from "./separable.ts";

/**
 * Defects of the published code that alignment can repeat: box axes 0 and 2 exchanged (D01), corner-aligned points that
 * include both ends (D02), the pooled size reversed (D03).
 */
export type AlignDefect = "axes" | "corners" | "size";
const ALL: readonly AlignDefect[] = ["axes", "corners", "size"];

/**
 * Samples a dense feature volume inside a box per sample.
 * @param x dense `[n][z][y][x][c]`
 * @param boxes `[n][6]`: lo z, y, x, hi z, y, x as fractions of the view, edge convention (0 and 1 are outer faces)
 * @param out bins per axis
 * @param sampling points per bin and axis; a bin is the mean of its sampling^3 points
 * @param mode "published" repeats all three defects of the published code; a list repeats those in it
 * @returns matrix `[n * out z * out y * out x][c]` ("size": `out` reversed)
 */
export function align(
  x: Tensor,
  boxes: Float32Array,
  out: Side = [7, 7, 7],
  sampling = 2,
  mode: "correct" | "published" | readonly AlignDefect[] = "correct",
): Tensor {
  const { n, side } = dense(x);
  if (boxes.length !== 6 * n) throw new Error(`align: ${boxes.length} box values for ${n} samples of 6`);
  const defects = mode === "correct" ? [] : mode === "published" ? ALL : mode;
  const corners = defects.includes("corners");
  const pooled: Side = defects.includes("size") ? [out[2], out[1], out[0]] : out;
  const matrices = Array.from({ length: n }, (_, k) => {
    const axis = (d: number) => {
      const b = defects.includes("axes") ? 2 - d : d;
      const [lo, hi] = [boxes[6 * k + b], boxes[6 * k + 3 + b]];
      const count = out[d] * sampling;
      const positions = Array.from(
        { length: count },
        (_, j) =>
          corners
            ? cornerAligned(lo, hi, count === 1 ? -1 : 2 * j / (count - 1) - 1, side[d])
            : (lo + (j + 0.5) / count * (hi - lo)) * side[d] - 0.5,
      );
      return interpolation(positions, pooled[d], side[d]);
    };
    return [axis(0), axis(1), axis(2)] as const;
  });
  return separable(x, matrices, pooled);
}

/** Index of point t in -1..1 of a box, where 0 and 1 of the box mean the centres of the first and last voxel. */
function cornerAligned(lo: number, hi: number, t: number, side: number): number {
  return (t * (hi - lo) + lo + hi) / 2 * (side - 1);
}

/** Linear interpolation at continuous indices, clamped to the border, then the mean over the windows of `out` bins. */
function interpolation(positions: readonly number[], out: number, side: number): AxisMatrix {
  const terms = [...windows(out, positions.length)].flatMap(([o, j, weight]): [number, number, number][] => {
    const at = Math.min(Math.max(positions[j], 0), side - 1);
    const first = Math.min(Math.floor(at), Math.max(side - 2, 0));
    const share = at - first;
    return share ? [[o, first, weight * (1 - share)], [o, first + 1, weight * share]] : [[o, first, weight]];
  });
  return axisMatrix(out, side, terms);
}
