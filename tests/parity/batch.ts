/** Made-up batches that fixtures/truth_rng.py draws too: waves, whose second views are the same waves shifted. */
import type { Batch } from "../../lib/data/loader.ts";
import { Rng } from "../../lib/rng.ts";

/** Batch of a step: `count` images (pairs when `views` is 2) of `side`^3 voxels, with the exact overlap of each pair. */
export function batch(step: number, side: number, count: number, views: 1 | 2): Batch {
  const rng = new Rng("truth", step);
  const images = new Float32Array(count * views * side ** 3);
  const overlap = new Float32Array(views === 2 ? count * 12 : 0);
  for (let k = 0; k < count; k++) {
    const [a, b, c] = [0, 1, 2].map(() => rng.uniform(0.1, 0.9));
    const [d, e] = [rng.uniform(0, 6), rng.uniform(0, 6)];
    const shift = [0, 1, 2].map(() => rng.integer(13) - 6);
    for (let view = 0; view < views; view++) {
      const [sz, sy, sx] = view ? shift : [0, 0, 0];
      let at = (view * count + k) * side ** 3;
      for (let z = sz; z < sz + side; z++) {
        for (let y = sy; y < sy + side; y++) {
          for (let x = sx; x < sx + side; x++) {
            images[at++] = Math.sin(a * x + d) + Math.cos(b * y + e) * Math.sin(c * z);
          }
        }
      }
      if (views === 1) continue;
      const start = view ? shift.map((s) => -s) : shift;
      const box = [...start.map((s) => Math.max(0, s)), ...start.map((s) => Math.min(side, side + s))];
      overlap.set(box.map((v) => v / side), (view * count + k) * 6);
    }
  }
  return { images, overlap, ids: Array.from({ length: count * views }, (_, i) => `wave ${i % count}`) };
}
