import { assert, assertEquals } from "@std/assert";
import type { Case } from "../../lib/data/cases.ts";
import { Rng } from "../../lib/rng.ts";
import { volume } from "../../lib/tensor.ts";
import { crop, type Crops, forced, sites } from "../../lib/train/patches.ts";

const shape = [20, 12, 24] as const;
const centre = [9, 6, 11];
/** A soft ball; the label is where it is above one half. */
const image = Float32Array.from({ length: volume(shape) }, (_, i) => {
  const at = [Math.floor(i / 288), Math.floor(i / 24) % 12, i % 24];
  return 1 / (1 + Math.exp(Math.hypot(...at.map((v, a) => v - centre[a])) - 4));
});
const target = Uint8Array.from(image, (v) => v > 0.5 ? 1 : 0);
const file: Case["file"] = {
  shape,
  turn: { axes: [0, 1, 2], flips: [false, false, false] },
  header: new Uint8Array(),
  affine: [],
  box: { low: [0, 0, 0], high: [20, 12, 24] },
};
const ball: Case = { id: "ball", shape, image, target, file };
const source = { case: ball, sites: sites(target, 2) };
const patch = [16, 16, 16] as const;
const empty = (n: number): Crops => ({
  image: new Float32Array(n * 4096),
  labels: new Uint8Array(n * 4096),
  targets: new Float32Array(),
});

Deno.test("patches: the last third of a batch is forced, rounded as nnU-Net does", () => {
  const count = (n: number) => Array.from({ length: n }, (_, i) => forced(i, n)).filter(Boolean).length;
  assertEquals([1, 2, 4, 6, 8, 16].map(count), [0, 1, 1, 2, 3, 5]);
});

Deno.test("patches: a plain crop is a piece of the volume, zero outside", () => {
  const out = empty(2);
  crop(source, patch, 0, 2, out, new Rng(5), true);
  const found = [];
  for (let z = 0; z <= 4; z++) {
    for (let x = 0; x <= 8; x++) {
      const equal = out.image.subarray(0, 4096).every((v, i) => {
        const [a, b, c] = [z + Math.floor(i / 256), Math.floor(i / 16) % 16 - 2, x + i % 16];
        return v === (b < 0 || b >= 12 ? 0 : image[(a * 12 + b) * 24 + c]);
      });
      if (equal) found.push([z, x]);
    }
  }
  assertEquals(found.length, 1);
  crop(source, patch, 1, 2, out, new Rng(6), true);
  assertEquals(out.labels[4096 + (8 * 16 + 8) * 16 + 8], 1);
});

Deno.test("patches: image and labels stay together through mirror, rotation and scale; equal keys, equal crops", () => {
  const [seen, again] = [empty(1), empty(1)];
  const distinct = new Set<string>();
  for (let i = 0; i < 40; i++) {
    for (const out of [seen, again]) {
      out.image.fill(0);
      out.labels.fill(0);
      crop(
        { case: { ...source.case, image: Float32Array.from(target) }, sites: source.sites },
        patch,
        0,
        1,
        out,
        new Rng(i),
      );
    }
    assertEquals(again, seen);
    distinct.add(seen.labels.join(""));
    // Any change of intensity but strong noise keeps the two classes apart on the mean.
    const mean = (k: number) => {
      const values = seen.image.filter((_, j) => seen.labels[j] === k);
      return values.length ? values.reduce((a, b) => a + b) / values.length : NaN;
    };
    if (seen.labels.includes(1)) assert(mean(1) - mean(0) > 0.4, `${i}: ${mean(1)} ${mean(0)}`);
  }
  assert(distinct.size > 30);
});
