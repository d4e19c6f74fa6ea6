/** How a volume is cut into attention windows: padded, shifted, partitioned, and which tokens may see each other. */
import { plan, type Rows } from "../ops/gather.ts";
import { type Side, volume } from "../tensor.ts";

/** One way to cut a batch of volumes. */
export interface Windows {
  /** Rows of the volumes -> rows of the windows, `[sample][window][token]`. */
  rows: Rows;
  /** Tokens of a window. */
  tokens: number;
  /** Region of each token, `[window][token]`, where the shift brought distant voxels into one window. */
  regions?: Uint8Array;
}

const known = new Map<string, Windows>();

/**
 * Windows of `edge` voxels per axis after a cyclic shift. The volume is padded at its high end to whole windows; an axis
 * of at most `edge` voxels is one window, not shifted (MONAI). Kept by shape.
 */
export function windows(samples: number, side: Side, edge: number, shift: number): Windows {
  const key = [samples, ...side, edge, shift].join();
  const found = known.get(key) ?? cut(samples, side, edge, shift);
  known.set(key, found);
  return found;
}

function cut(samples: number, side: Side, edge: number, shift: number): Windows {
  const size = side.map((s) => Math.min(s, edge));
  const shifts = side.map((s) => s <= edge ? 0 : shift);
  const counts = side.map((s, a) => Math.ceil(s / size[a]));
  // Per axis, window by window: the source coordinate (-1: padding) and the region of each place.
  const axes = side.map((s, a) => {
    const padded = counts[a] * size[a];
    return Array.from({ length: padded }, (_, p) => {
      const from = (p + shifts[a]) % padded;
      const region = !shifts[a] || p >= padded - shifts[a] ? 2 : p >= padded - size[a] ? 1 : 0;
      return { from: from < s ? from : -1, region };
    });
  });
  const tokens = size[0] * size[1] * size[2];
  const each = counts[0] * counts[1] * counts[2] * tokens;
  const index = new Int32Array(samples * each);
  const regions = new Uint8Array(each);
  for (let i = 0; i < each; i++) {
    const [w, t] = [Math.floor(i / tokens), i % tokens];
    const window = [
      Math.floor(w / (counts[1] * counts[2])),
      Math.floor(w / counts[2]) % counts[1],
      w % counts[2],
    ];
    const token = [Math.floor(t / (size[1] * size[2])), Math.floor(t / size[2]) % size[1], t % size[2]];
    const [z, y, x] = axes.map((axis, a) => axis[window[a] * size[a] + token[a]]);
    regions[i] = 9 * z.region + 3 * y.region + x.region;
    const inside = z.from >= 0 && y.from >= 0 && x.from >= 0;
    for (let n = 0; n < samples; n++) {
      index[n * each + i] = inside ? ((n * side[0] + z.from) * side[1] + y.from) * side[2] + x.from : -1;
    }
  }
  return {
    rows: plan(index, samples * volume(side)),
    tokens,
    ...(shifts.some((s) => s > 0) ? { regions } : {}),
  };
}
