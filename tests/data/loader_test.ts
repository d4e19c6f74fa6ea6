import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { type Batch, Loader, type LoaderOptions } from "../../lib/data/loader.ts";
import { drawPairs, readPairs } from "../../lib/data/pairs.ts";
import { drawPair, type Extent, type Triple } from "../../lib/data/views.ts";
import { Rng } from "../../lib/rng.ts";
import { memory } from "../../lib/tensor.ts";

const volumes: Extent[] = [{ id: "a", shape: [24, 30, 26] }, { id: "b", shape: [33, 21, 16] }];
const data = new Map(volumes.map(({ id, shape: [z, y, x] }) => {
  const rng = new Rng("loader", id);
  return [id, Float32Array.from({ length: z * y * x }, () => rng.normal())];
}));
const store = {
  volumes,
  get: (id: string) => volumes.find((v) => v.id === id),
  read: (id: string) =>
    new Promise<Float32Array>((done) => setTimeout(() => done(data.get(id)!), Math.random() * 3)),
};
const patch: Triple = [16, 16, 16];
const base: LoaderOptions = { store, patch, batch: 3, seed: 5, views: 2 };

async function take(count: number, options: Partial<LoaderOptions> = {}): Promise<Batch[]> {
  const loader = new Loader({ ...base, ...options });
  const out: Batch[] = [];
  for (let i = 0; i < count; i++) out.push(await loader.next());
  await loader.close();
  return out;
}

Deno.test("loader: the same batches at any prefetch depth, and after a resume", async () => {
  for (const views of [1, 2] as const) {
    const batches = await take(4, { views });
    assertEquals(await take(4, { views, ahead: 0 }), batches);
    assertEquals(await take(2, { views, start: 2, ahead: 4 }), batches.slice(2));
    assert((await take(1, { views, seed: 6 }))[0].images.some((v, i) => v !== batches[0].images[i]));
    assertEquals(batches[0].images.length, 3 * views * 16 ** 3);
  }
});

Deno.test("loader: pairs from a pipe give the bytes of pairs drawn inside, also after a resume", async () => {
  const lines: string[] = [];
  for await (const pair of drawPairs(store, patch, 5, { to: 12 })) lines.push(JSON.stringify(pair) + "\n");
  const piped = () => readPairs(new Blob(lines).stream(), "-", store, patch);
  const inside = await take(4);
  assertEquals(await take(4, { pairs: piped(), seed: 99, ahead: 0 }), inside);
  assertEquals(await take(1, { pairs: piped(), start: 3, ahead: 0 }), inside.slice(3));
});

Deno.test("loader: first views, then second views, each with its own overlap and volume", async () => {
  const [{ images, overlap, ids }] = await take(1, { augment: false });
  for (let i = 0; i < 3; i++) {
    const pair = drawPair(5, i, volumes, patch, false);
    assertEquals([ids[i], ids[i + 3]], [pair.volume, pair.volume]);
    assertEquals(overlap.slice(i * 6, i * 6 + 6), Float32Array.from(pair.overlap.a));
    assertEquals(overlap.slice((i + 3) * 6, (i + 4) * 6), Float32Array.from(pair.overlap.b));
    const { shape } = store.get(pair.volume)!;
    [pair.a, pair.b].forEach(({ box: [z, y, x] }, v) => {
      const first = data.get(pair.volume)![(z * shape[1] + y) * shape[2] + x];
      assertEquals(images[(i + 3 * v) * 16 ** 3], first);
    });
  }
});

Deno.test("loader: used-up pairs are an error at the step that lacks them", async () => {
  const loader = new Loader({ ...base, pairs: drawPairs(store, patch, 5, { to: 7 }) });
  await loader.next();
  await loader.next();
  await assertRejects(() => loader.next(), UserError, "there are 7, step 3 needs 9");
  await loader.close();
});

Deno.test("loader: time in which the caller computes is not waited for", async () => {
  const slow = {
    ...store,
    read: (id: string) => new Promise<Float32Array>((done) => setTimeout(() => done(data.get(id)!), 20)),
  };
  const loader = new Loader({ ...base, store: slow, batch: 2, augment: false });
  await loader.next();
  const first = loader.waited;
  await new Promise((done) => setTimeout(done, 400));
  await loader.next();
  assert(first > .05 && loader.waited - first < .05, `${first} ${loader.waited}`);
  await loader.close();
});

Deno.test("loader: augmentation reversal gives targets and inputs, both functions of (seed, step)", async () => {
  const options = { views: 1, reversal: true, batch: 8 } as const;
  const batches = await take(3, options);
  assertEquals(await take(1, { ...options, start: 2, ahead: 0 }), batches.slice(2));
  const size = 16 ** 3;
  let changed = 0;
  for (const { images, inputs } of batches) {
    for (let i = 0; i < 8; i++) {
      const [target, input] = [images, inputs!].map((v) => v.subarray(i * size, (i + 1) * size));
      if (input.some((v, j) => v !== target[j])) changed++;
      const bounds = (values: Float32Array) => [Math.min(...values), Math.max(...values)];
      const [low, high] = bounds(target);
      assert(bounds(input).every((v) => v >= low - 1e-5 && v <= high + 1e-5));
    }
  }
  // 1 - (1 - 0.33) (1 - 0.2)^5 (1 - 0.1)^2 of the examples change.
  assert(changed > 12 && changed < 24, `${changed} of 24 inputs are changed`);
  const [plain] = await take(1, { ...options, augment: false });
  assertEquals(plain.inputs, plain.images);
});

Deno.test("loader: images made with the step are those made ahead, and nothing of them stays", async () => {
  const before = memory().tensors;
  for (const views of [1, 2] as const) {
    const ahead = await take(4, { views });
    const loader = new Loader({ ...base, views, later: true });
    for (const { images, overlap, ids } of ahead) {
      const batch = await loader.next();
      assertEquals(batch.images, images);
      assertEquals([batch.overlap, batch.ids, batch.inputs], [overlap, ids, undefined]);
    }
    await loader.close();
  }
  // Elastic views read a part that is a little larger or smaller.
  const ahead = await take(20, { views: 1, reversal: true });
  const loader = new Loader({ ...base, views: 1, reversal: true, later: true });
  for (const { images, inputs } of ahead) {
    const batch = await loader.next();
    const pairs = [[batch.images, images], [batch.inputs!, inputs!]];
    for (const [got, want] of pairs) got.forEach((v, i) => assertAlmostEquals(v, want[i], 1e-4));
  }
  await loader.close();
  assertEquals(memory().tensors, before);
});
