import { assert, assertEquals } from "@std/assert";
import type { Case } from "../../lib/data/cases.ts";
import { Rng } from "../../lib/rng.ts";
import { volume } from "../../lib/tensor.ts";
import { crop, type Crops, forced, sample, sites } from "../../lib/train/patches.ts";

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

Deno.test("patches: a plain crop is a piece of the volume, zero outside", async () => {
  const out = empty(2);
  await crop(source, patch, 0, 2, out, new Rng(5), true);
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
  await crop(source, patch, 1, 2, out, new Rng(6), true);
  assertEquals(out.labels[4096 + (8 * 16 + 8) * 16 + 8], 1);
});

Deno.test("patches: image and labels stay together through mirror, rotation and scale; equal keys, equal crops", async () => {
  const [seen, again] = [empty(1), empty(1)];
  const distinct = new Set<string>();
  for (let i = 0; i < 40; i++) {
    for (const out of [seen, again]) {
      out.image.fill(0);
      out.labels.fill(0);
      await crop(
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

Deno.test("patches: sampled values are those of a function that is linear, labels those of the nearest voxel", async () => {
  const shape = [9, 11, 13] as const;
  const of = (z: number, y: number, x: number) => [2 * z - y + 0.5 * x, 3 - z + 0.25 * y * 4 - x];
  const at = (i: number) => [Math.floor(i / 143), Math.floor(i / 13) % 11, i % 13] as const;
  const image = Float32Array.from({ length: 2 * volume(shape) }, (_, i) => of(...at(i >> 1))[i % 2]);
  const target = Uint8Array.from({ length: volume(shape) }, (_, i) => i % 251);
  const [patch, start] = [[6, 5, 7] as const, [1, 3, 2]];
  const m = [0.813, 0.471, -0.237, -0.433, 0.929, 0.117, 0.291, -0.073, -1.131];
  const [out, labels] = [new Float32Array(2 * volume(patch)).fill(9), new Uint8Array(volume(patch)).fill(9)];
  await sample({ image, target, shape }, start, patch, m, out, labels);
  let inside = 0;
  for (let i = 0; i < volume(patch); i++) {
    const from = [Math.floor(i / 35), Math.floor(i / 7) % 5, i % 7].map((v, a) => v - (patch[a] - 1) / 2);
    const p = [0, 1, 2].map((a) =>
      start[a] + (patch[a] - 1) / 2 + from.reduce((sum, v, b) => sum + m[3 * a + b] * v, 0)
    );
    const near = p.map(Math.round);
    const seen = near.every((v, a) => v >= 0 && v < shape[a]);
    assertEquals(labels[i], seen ? ((near[0] * 11 + near[1]) * 13 + near[2]) % 251 : 0);
    if (p.every((v, a) => v >= 0 && v <= shape[a] - 1)) {
      inside++;
      of(p[0], p[1], p[2]).forEach((v, c) => assert(Math.abs(out[2 * i + c] - v) < 1e-5));
    }
    if (p.some((v, a) => v <= -1 || v >= shape[a])) assertEquals([...out.subarray(2 * i, 2 * i + 2)], [0, 0]);
  }
  assert(inside > 50 && inside < volume(patch));
});
