/** Overlap of two label maps: DSC = 2 TP / (2 TP + FP + FN) per label, voxel counts and boxes. */

/** What one label does in a pair of label maps. */
export interface Overlap {
  /** Voxels with this label in the truth, in the prediction, in both. */
  truth: number;
  prediction: number;
  both: number;
  /** Box of all its voxels in either: low corner and high corner (exclusive), z, y, x; low > high without any. */
  low: [number, number, number];
  high: [number, number, number];
}

/**
 * Counts every label of `labels` in two maps of shape [z, y, x] in one pass.
 * @returns the overlaps in the order of `labels`
 */
export function overlaps(
  truth: Uint16Array,
  prediction: Uint16Array,
  shape: [number, number, number],
  labels: number[],
): Overlap[] {
  const slot = new Int32Array(65536).fill(-1);
  labels.forEach((label, i) => slot[label] = i);
  const found: Overlap[] = labels.map(() => ({
    truth: 0,
    prediction: 0,
    both: 0,
    low: [Infinity, Infinity, Infinity],
    high: [0, 0, 0],
  }));
  const [nz, ny, nx] = shape;
  const grow = ({ low, high }: Overlap, z: number, y: number, x: number) => {
    if (z < low[0]) low[0] = z;
    if (y < low[1]) low[1] = y;
    if (x < low[2]) low[2] = x;
    if (z >= high[0]) high[0] = z + 1;
    if (y >= high[1]) high[1] = y + 1;
    if (x >= high[2]) high[2] = x + 1;
  };
  for (let z = 0, i = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, i++) {
        const t = slot[truth[i]];
        const p = slot[prediction[i]];
        if (t >= 0) {
          found[t].truth++;
          grow(found[t], z, y, x);
          if (t === p) found[t].both++;
        }
        if (p >= 0) {
          found[p].prediction++;
          if (t !== p) grow(found[p], z, y, x);
        }
      }
    }
  }
  return found;
}

/** Dice similarity coefficient, a fraction; null when the label is in neither map, 0 when it is in one. */
export function dice({ truth, prediction, both }: Overlap): number | null {
  return truth + prediction === 0 ? null : 2 * both / (truth + prediction);
}
