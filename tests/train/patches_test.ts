import { assert, assertEquals } from "@std/assert";
import { drawChannels } from "../../lib/data/augment.ts";
import { Views } from "../../lib/data/images.ts";
import { sampleView } from "../../lib/data/sample.ts";
import { drawChange, makeView, type Triple } from "../../lib/data/views.ts";
import { native } from "../../lib/native/library.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, memory, scope, volume, wait } from "../../lib/tensor.ts";
import { crop, type Crops, forced, sites } from "../../lib/train/patches.ts";

const shape = [20, 12, 24] as const;
const centre = [9, 6, 11];
/** A soft ball; the label is where it is above one half. */
const image = Float32Array.from({ length: volume(shape) }, (_, i) => {
  const at = [Math.floor(i / 288), Math.floor(i / 24) % 12, i % 24];
  return 1 / (1 + Math.exp(Math.hypot(...at.map((v, a) => v - centre[a])) - 4));
});
const target = Uint8Array.from(image, (v) => v > 0.5 ? 1 : 0);
const ball = { shape, image, target };
const source = { case: ball, sites: sites(target, 2) };
const empty = (n: number, channels = 1): Crops => ({
  views: new Views([16, 16, 16], { channels }),
  labels: new Uint8Array(n * 4096),
  targets: new Float32Array(),
});

/** The images of `out`, which is done with. */
async function imagesOf({ views }: Crops, n: number): Promise<Float32Array> {
  return await scope(async () => {
    const images = views.tensor({ grid: Grid.dense(n), side: [16, 16, 16] });
    await wait();
    views[Symbol.dispose]();
    return images.read();
  });
}

Deno.test("patches: the last third of a batch is forced, rounded as nnU-Net does", () => {
  const count = (n: number) => Array.from({ length: n }, (_, i) => forced(i, n)).filter(Boolean).length;
  assertEquals([1, 2, 4, 6, 8, 16].map(count), [0, 1, 1, 2, 3, 5]);
});

Deno.test("patches: a plain crop is a piece of the volume, zero outside", async () => {
  const out = empty(2);
  await crop(source, 0, 2, out, new Rng(5), true);
  await crop(source, 1, 2, out, new Rng(6), true);
  const images = await imagesOf(out, 2);
  const found = [];
  for (let z = 0; z <= 4; z++) {
    for (let x = 0; x <= 8; x++) {
      const equal = images.subarray(0, 4096).every((v, i) => {
        const [a, b, c] = [z + Math.floor(i / 256), Math.floor(i / 16) % 16 - 2, x + i % 16];
        return v === (b < 0 || b >= 12 ? 0 : image[(a * 12 + b) * 24 + c]);
      });
      if (equal) found.push([z, x]);
    }
  }
  assertEquals(found.length, 1);
  assertEquals(out.labels[4096 + (8 * 16 + 8) * 16 + 8], 1);
});

Deno.test("patches: image and labels stay together through mirror, rotation and scale; equal keys, equal crops", async () => {
  const distinct = new Set<string>();
  const both = Float32Array.from(
    { length: 2 * target.length },
    (_, i) => i % 2 ? 1 - target[i >> 1] : target[i >> 1],
  );
  for (let i = 0; i < 60; i++) {
    const made = [empty(1, 2), empty(1, 2)];
    for (const out of made) {
      await crop({ case: { ...ball, image: both }, sites: source.sites }, 0, 1, out, new Rng(i));
    }
    const [images, again] = [await imagesOf(made[0], 1), await imagesOf(made[1], 1)];
    assertEquals(again, images);
    assertEquals(made[1].labels, made[0].labels);
    const { labels } = made[0];
    distinct.add(labels.join(""));
    // Any change of intensity but strong noise keeps the two classes apart on the mean; the second channel is the inverse, and 0 outside.
    const mean = (channel: number, k: number) => {
      const values = images.filter((_, j) => j % 2 === channel && labels[j >> 1] === k);
      return values.reduce((a, b) => a + b) / values.length;
    };
    if (!labels.includes(1)) continue;
    assert(mean(0, 1) - mean(0, 0) > 0.4, `${i}: ${mean(0, 1)} ${mean(0, 0)}`);
    assert(mean(1, 1) < mean(1, 0), `${i}: ${mean(1, 1)} ${mean(1, 0)}`);
  }
  assert(distinct.size > 40);
  await wait();
  assertEquals(memory().bytes, 0);
});

Deno.test("patches: labels of a turned view are the classes with the largest linear weight", async () => {
  const [from, patch] = [[9, 11, 13] as Triple, [6, 5, 7] as Triple];
  const classes = 5;
  const target = Uint8Array.from({ length: volume(from) }, (_, i) => (i * 2654435761 >>> 7) % classes);
  let turned = 0;
  for (let i = 0; i < 30; i++) {
    const rng = new Rng(i);
    const start = [1, 3, 2].map((s) => s - rng.integer(3));
    const view = makeView(
      start,
      patch,
      start.map((s, d) => s + patch[d] / 2),
      drawChange(rng, Math.PI / 6, true),
    );
    const labels = new Uint8Array(volume(patch)).fill(9);
    const affine = Float64Array.from(view.affine.flat());
    const head = [target, target.length, ...from, affine, 12, ...patch] as const;
    await native().vx_sample_labels_wait(...head, labels, labels.length);
    const shares: Float32Array[] = [];
    for (let k = 0; k < classes; k++) {
      shares.push(
        await sampleView(Float32Array.from(target, (v) => v === k ? 1 : 0), from, view, undefined, 1),
      );
    }
    const whole = view.affine.flat().every(Number.isInteger);
    labels.forEach((label, j) => {
      const each = shares.map((share) => share[j]);
      const sum = each.reduce((a, b) => a + b);
      if (sum === 0 && whole) assertEquals(label, 0);
      // Near equal shares, and those beyond the outermost centres, are left to rounding.
      if (sum < 0.5) return;
      assert(each[label] > Math.max(...each) - 1e-5, `${i} ${j}: ${label} of ${each}`);
      if (!whole) turned++;
    });
  }
  assert(turned > 500, `${turned}`);
});

Deno.test("patches: changes of intensity have the chances and ranges of nnU-Net; noise has one deviation for all channels", () => {
  const table: Record<string, [p: number, low: number, high: number]> = {
    gaussian: [0.1, 0, 0.1],
    blur: [0.2 * 0.5, 0.5, 1],
    brightness: [0.15, 0.75, 1.25],
    contrast: [0.15, 0.75, 1.25],
    lowResolution: [0.25 * 0.5, 0.5, 1],
    invertedGamma: [0.1, 0.7, 1.5],
    gamma: [0.3, 0.7, 1.5],
  };
  const n = 8000;
  const seen = Object.fromEntries(Object.keys(table).map((kind) => [kind, [] as number[]]));
  for (let i = 0; i < n; i++) {
    const [a, b] = drawChannels(new Rng(i, "changes"), 2);
    for (const change of a) seen[change.kind].push(change.a);
    const noise = [a, b].map((list) => list.find(({ kind }) => kind === "gaussian"));
    assertEquals(noise[0]?.a, noise[1]?.a);
    if (noise[0]) assert(noise[0].seed !== noise[1]!.seed);
  }
  for (const [kind, [p, low, high]] of Object.entries(table)) {
    const values = seen[kind];
    assert(Math.abs(values.length / n - p) < 4 * Math.sqrt(p * (1 - p) / n), `${kind}: ${values.length / n}`);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const near = 0.05 * (high - low);
    assert(
      least >= low && least < low + near && most <= high && most > high - near,
      `${kind}: ${least} ${most}`,
    );
    if (low < 1 && high > 1) {
      const below = values.filter((v) => v < 1).length / values.length;
      assert(Math.abs(below - 0.5) < 2 / Math.sqrt(values.length), `${kind}: ${below} below 1`);
    }
  }
});
