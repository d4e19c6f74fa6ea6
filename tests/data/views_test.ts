import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { UsageError, UserError } from "../../lib/errors.ts";
import { drawPairs, readPairs } from "../../lib/data/pairs.ts";
import {
  drawPair,
  drawSingle,
  type Extent,
  type Pair,
  place,
  readPatch,
  tooSmall,
  type Triple,
  type View,
} from "../../lib/data/views.ts";

const PATCH: Triple = [32, 32, 32];
const EXTENTS: Extent[] = [
  { id: "cube", shape: [64, 64, 64] },
  { id: "flat", shape: [40, 70, 33] },
  { id: "same", shape: [32, 32, 32] },
  { id: "small", shape: [20, 48, 61] },
];
const store = { volumes: EXTENTS, get: (id: string) => EXTENTS.find((v) => v.id === id) };
const axes = [0, 1, 2];

/** The point at fractions `u` of an overlap box of a view, in the stored volume. */
const inside = (view: View, box: number[], u: number[], patch: Triple) =>
  place(view, axes.map((d) => patch[d] * (box[d] + u[d] * (box[d + 3] - box[d]))));

Deno.test("D01 D02: 10,000 pairs, the same fraction of both overlaps is the same point on every axis", () => {
  let worst = 0;
  let turned = 0;
  for (let index = 0; index < 10_000; index++) {
    const pair = drawPair(1, index, EXTENTS, PATCH);
    turned += Number(pair.a.affine[0][1] !== 0);
    for (const u of [[0, 0, 0], [1, 1, 1], [.1, .5, .9], [1, 0, .3]]) {
      const p = inside(pair.a, pair.overlap.a, u, PATCH);
      const q = inside(pair.b, pair.overlap.b, u, PATCH);
      worst = Math.max(worst, ...p.map((v, d) => Math.abs(v - q[d])));
    }
  }
  assert(worst < 1e-9, `${worst} voxels apart`);
  assert(turned > 1800 && turned < 2200, `${turned} pairs are turned`);
});

Deno.test("D08 D09: the overlap is the integer intersection of the boxes, which lie in the volume", () => {
  for (let index = 0; index < 10_000; index++) {
    const pair = drawPair(2, index, EXTENTS, PATCH);
    const shape = store.get(pair.volume)!.shape;
    const { a: { box: a, affine }, b: { box: b } } = pair;
    for (const d of axes) {
      const [lo, hi] = [Math.max(a[d], b[d]), Math.min(a[d + 3], b[d + 3])];
      const flipped = affine.every((row) => row[d] <= 0) && affine[d][d] === -1;
      for (const [name, box] of [["a", a], ["b", b]] as const) {
        const o = pair.overlap[name];
        assertAlmostEquals((o[d + 3] - o[d]) * PATCH[d], hi - lo, 1e-9);
        if (affine[d][d] === 1 || flipped) {
          const from = flipped ? box[d + 3] - hi : lo - box[d];
          assertAlmostEquals(o[d] * PATCH[d], from, 1e-9);
        }
        assertEquals(box[d + 3] - box[d], PATCH[d]);
        if (shape[d] >= PATCH[d]) assert(box[d] >= 0 && box[d + 3] <= shape[d]);
        else assert(box[d] === Math.floor((shape[d] - PATCH[d]) / 2));
      }
    }
  }
});

Deno.test("D10: either view is the lower one with p = 1/2 on every axis, in the volume and as seen from a", () => {
  for (const d of axes) {
    let [lower, higher, left, right] = [0, 0, 0, 0];
    for (let index = 0; index < 4000; index++) {
      const { a, b, overlap } = drawPair(3, index, [EXTENTS[0]], PATCH);
      lower += Number(a.box[d] < b.box[d]);
      higher += Number(a.box[d] > b.box[d]);
      left += Number(overlap.a[d] < overlap.b[d]);
      right += Number(overlap.a[d] > overlap.b[d]);
    }
    assert(Math.abs(lower / (lower + higher) - .5) < .03, `${lower} ${higher}`);
    assert(Math.abs(left / (left + right) - .5) < .03, `${left} ${right}`);
  }
});

Deno.test("pairs: the shared fraction is U(0.4, 0.8) where two patches fit", () => {
  const patch: Triple = [96, 96, 96];
  const shares: number[] = [];
  for (let index = 0; index < 4000; index++) {
    const { overlap: { a } } = drawPair(4, index, [{ id: "v", shape: [160, 180, 160] }], patch);
    shares.push(axes.reduce((p, d) => p * (a[d + 3] - a[d]), 1));
  }
  shares.sort((p, q) => p - q);
  const distance = Math.max(...shares.map((s, i) => Math.abs((s - .4) / .4 - i / shares.length)));
  assert(distance < .03, `Kolmogorov distance ${distance}`);
});

Deno.test("D11: without augmentation no view has a voxel from outside of a volume that holds the patch", () => {
  for (let index = 0; index < 500; index++) {
    const { a, b } = drawPair(5, index, [EXTENTS[1]], PATCH, false);
    const { view } = drawSingle(5, index, [EXTENTS[1]], PATCH, false);
    for (const { affine, box } of [a, b, view]) {
      assertEquals(affine, axes.map((r) => [...axes.map((c) => Number(r === c)), box[r]]));
      for (const d of axes) assert(box[d] >= 0 && box[d + 3] <= EXTENTS[1].shape[d]);
    }
  }
});

Deno.test("single views: rotation within 30 degrees in a fifth, flips in half, the crop's centre stays", () => {
  let [turned, flipped] = [0, 0];
  for (let index = 0; index < 4000; index++) {
    const { view } = drawSingle(6, index, [EXTENTS[0]], PATCH);
    const sign = view.affine[0][0];
    turned += Number(view.affine[1][2] !== 0);
    flipped += Number(sign < 0);
    place(view, [16, 16, 16]).forEach((v, d) => assertAlmostEquals(v, view.box[d] + 16, 1e-9));
  }
  assert(Math.abs(turned / 4000 - .2) < .03, `${turned}`);
  assert(Math.abs(flipped / 4000 - .5) < .03, `${flipped}`);
});

const stream = (text: string) => new Blob([text]).stream();

async function collect(pairs: AsyncIterable<Pair>): Promise<Pair[]> {
  const out: Pair[] = [];
  for await (const pair of pairs) out.push(pair);
  return out;
}

Deno.test("pairs: 20 are the first 20 of 400, and come back equal from their JSON lines", async () => {
  const few = await collect(drawPairs(store, PATCH, 7, { to: 20 }));
  const many = await collect(drawPairs(store, PATCH, 7, { to: 400 }));
  assertEquals(many.slice(0, 20), few);
  const text = many.map((pair) => JSON.stringify(pair)).join("\n");
  assertEquals(
    await collect(readPairs(stream(text), "-", store, PATCH)),
    JSON.parse(`[${text.replaceAll("\n", ",")}]`),
  );
});

Deno.test("pairs: a wrong line is refused with its number and what is wrong", async () => {
  const good = drawPair(8, 0, [EXTENTS[0]], PATCH, false);
  const cases: [unknown, string][] = [
    [{ ...good, volume: "none" }, 'pairs.jsonl:2: volume "none" is not in the store'],
    [{ ...good, a: { ...good.a, box: [40, 0, 0, 72, 32, 32] } }, "runs out of its volume of 64 x 64 x 64"],
    [{ ...good, a: { ...good.a, affine: [[1, 0, 0, 90], [0, 1, 0, 0], [0, 0, 1, 0]] } }, "leads out of"],
    [{ ...good, overlap: { ...good.overlap, a: [0, 0, 0, 1, 1, .1] } }, "not the same voxels"],
    [{ ...good, overlap: undefined }, "overlap.a"],
    [{ ...good, b: undefined }, "b.box"],
    [{ ...good, index: -1 }, "index is -1"],
    [null, "seed is undefined"],
  ];
  for (const [value, text] of cases) {
    const lines = `${JSON.stringify(good)}\n${JSON.stringify(value)}\n`;
    await assertRejects(
      () => collect(readPairs(stream(lines), "pairs.jsonl", store, PATCH)),
      UserError,
      text,
    );
  }
  await assertRejects(
    () => collect(readPairs(stream("{cut"), "-", store, PATCH)),
    UserError,
    "-:1: this line",
  );
  const other = readPairs(stream(JSON.stringify(good)), "-", store, [16, 16, 16]);
  await assertRejects(() => collect(other), UserError, "32 x 32 x 32, the patch is 16 x 16 x 16");
});

Deno.test("patches: one side or three, by x or commas; volumes that they do not fit are counted", () => {
  assertEquals(readPatch("160"), [160, 160, 160]);
  assertEquals(readPatch("32x160x96"), [32, 160, 96]);
  assertEquals(readPatch("32,160,96"), [32, 160, 96]);
  for (const text of ["", "a", "0", "-3", "3.5", "32x48", "1e2", "32x48x48x48"]) {
    assertThrows(() => readPatch(text), UsageError, `--patch is "${text}"`);
  }
  const volumes = [{ id: "a", shape: [40, 30, 40] as Triple }, { id: "b", shape: [64, 64, 64] as Triple }];
  assertEquals(tooSmall(volumes, [40, 30, 40]), undefined);
  assertEquals(
    tooSmall(volumes, [32, 48, 64])?.startsWith(
      "1 of 2 volumes are smaller than the patch on some axis (largest missing: 0 x 18 x 24 voxels of 32 x 48 x 64)",
    ),
    true,
  );
});
