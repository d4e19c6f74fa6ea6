/** Learned position tables on another grid of tokens. */
import { type Side, volume } from "../tensor.ts";

/** The two neighbours of a new index along one axis and the share of the second (half-pixel centres, edges repeat). */
function neighbours(i: number, from: number, to: number): [number, number, number] {
  const at = Math.min(Math.max((i + 0.5) * from / to - 0.5, 0), from - 1);
  const low = Math.floor(at);
  return [low, Math.min(low + 1, from - 1), at - low];
}

/**
 * Trilinear interpolation of a table `[tokens][width]` between token grids, as
 * `torch.nn.functional.interpolate(mode="trilinear", align_corners=False)`.
 * @param from tokens per axis of the table
 * @param to tokens per axis of the result
 */
export function resizePositions(table: Float32Array, from: Side, to: Side): Float32Array {
  const width = table.length / volume(from);
  const out = new Float32Array(volume(to) * width);
  for (let t = 0; t < volume(to); t++) {
    const place = [Math.floor(t / (to[1] * to[2])), Math.floor(t / to[2]) % to[1], t % to[2]];
    const near = place.map((i, a) => neighbours(i, from[a], to[a]));
    for (let corner = 0; corner < 8; corner++) {
      const [z, y, x] = near.map((n, a) => n[corner >> a & 1]);
      const share = near.reduce((w, n, a) => w * (corner >> a & 1 ? n[2] : 1 - n[2]), 1);
      const source = ((z * from[1] + y) * from[2] + x) * width;
      for (let c = 0; share && c < width; c++) out[t * width + c] += share * table[source + c];
    }
  }
  return out;
}
