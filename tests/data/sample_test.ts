import { assert, assertEquals, assertRejects } from "@std/assert";
import { applyIntensity, drawIntensity } from "../../lib/data/augment.ts";
import { sampleView } from "../../lib/data/sample.ts";
import { decode } from "../../lib/data/safetensors.ts";
import { drawPair, type Triple, type View } from "../../lib/data/views.ts";
import { native } from "../../lib/native/library.ts";
import { Rng } from "../../lib/rng.ts";
import { UserError } from "../../lib/errors.ts";

const file = new URL("../../fixtures/sample.safetensors", import.meta.url);
const { tensors } = decode(Deno.readFileSync(file), "sample.safetensors");
const axes = [0, 1, 2];

function near(got: Float32Array, expected: Float32Array, tolerance: number, what: string): void {
  const worst = got.reduce((m, v, i) => Math.max(m, Math.abs(v - expected[i])), 0);
  assert(worst <= tolerance && got.length === expected.length, `${what}: ${worst}`);
}

async function likeSciPy(): Promise<void> {
  for (const name of ["turned", "wide", "long", "large"]) {
    const volume = tensors.get(`${name}.volume`)!;
    const flat = tensors.get(`${name}.affine`)!.data;
    for (const order of [1, 3] as const) {
      const { shape, data } = tensors.get(`${name}.order${order}`)!;
      const affine = axes.map((r) => [...flat.subarray(r * 4, r * 4 + 4)]);
      const view: View = { box: [0, 0, 0, shape[0], shape[1], shape[2]], affine };
      assert(data.some((v) => v !== 0));
      const got = await sampleView(volume.data, volume.shape as Triple, view, undefined, order);
      near(got, data, 1e-4, `${name}, order ${order}`);
    }
  }
}

Deno.test("sampling: turned and scaled views are those of scipy.ndimage.affine_transform to 1e-4", async () => {
  await likeSciPy();
  const best = native().vx_force_isa(0);
  try {
    for (let level = 1; level < best; level++) {
      native().vx_force_isa(level);
      await likeSciPy();
    }
  } finally {
    native().vx_force_isa(0);
  }
});

Deno.test("sampling: crops and flips are copied bit for bit, 0 outside", async () => {
  const shape: Triple = [9, 12, 5];
  const rng = new Rng("sample");
  const volume = Float32Array.from({ length: 9 * 12 * 5 }, () => rng.normal());
  let flips = 0;
  for (let index = 0; index < 60; index++) {
    const pair = drawPair(1, index, [{ id: "v", shape }], [7, 6, 8]);
    const { a: view } = pair;
    if (view.affine.some((row, r) => axes.some((c) => c !== r && row[c] !== 0))) continue;
    if (Math.abs(view.affine[0][0]) !== 1) continue;
    const got = await sampleView(volume, shape, view);
    const expected = new Float32Array(7 * 6 * 8);
    for (let i = 0, n = 0; i < 7; i++) {
      for (let j = 0; j < 6; j++) {
        for (let k = 0; k < 8; k++, n++) {
          const [z, y, x] = [i, j, k].map((v, d) => {
            const lo = view.box[d];
            return view.affine[d][d] < 0 ? view.box[d + 3] - 1 - v : lo + v;
          });
          const inside = [z, y, x].every((v, d) => v >= 0 && v < shape[d]);
          expected[n] = inside ? volume[(z * 12 + y) * 5 + x] : 0;
        }
      }
    }
    flips += view.affine.filter((row, d) => row[d] < 0).length;
    assertEquals(got, expected);
  }
  assert(flips > 20);
});

/** Mean over 2 x 2 x 2 of 14 points per axis inside `box` (fractions) of a coordinate map, as alignment samples it. */
function align(map: Float32Array, [z, y, x]: Triple, box: readonly number[]): number[] {
  const size = [z, y, x];
  const out: number[] = [];
  const points = axes.map((d) =>
    Array.from({ length: 14 }, (_, j) => {
      const u = box[d] + (j + .5) / 14 * (box[d + 3] - box[d]);
      return Math.min(size[d] - 1, Math.max(0, u * size[d] - .5));
    })
  );
  for (const i of points[0]) {
    for (const j of points[1]) {
      for (const k of points[2]) {
        let sum = 0;
        const [fi, fj, fk] = [i, j, k].map((v, d) => Math.min(Math.floor(v), size[d] - 2));
        for (let c = 0; c < 8; c++) {
          const [a, b, e] = [c >> 2, c >> 1 & 1, c & 1];
          const w = (a ? i - fi : 1 - i + fi) * (b ? j - fj : 1 - j + fj) * (e ? k - fk : 1 - k + fk);
          sum += w * map[((fi + a) * y + fj + b) * x + fk + e];
        }
        out.push(sum);
      }
    }
  }
  return out;
}

Deno.test("D01 D02: a coordinate volume aligned in both views agrees to 0.05 voxel on every axis", async () => {
  const shape: Triple = [96, 90, 100];
  const patch: Triple = [32, 32, 32];
  let turned = 0;
  for (const axis of axes) {
    const strides = [shape[1] * shape[2], shape[2], 1];
    const volume = Float32Array.from(
      { length: shape[0] * shape[1] * shape[2] },
      (_, i) => Math.floor(i / strides[axis]) % shape[axis],
    );
    let seen = 0;
    for (let index = 0; seen < 12; index++) {
      const pair = drawPair(9, index, [{ id: "v", shape }], patch);
      // Views that reach out of the volume hold zeros there, which have no coordinate.
      const corner = (v: View, c: number) =>
        v.affine.map((r) => axes.reduce((s, d) => s + r[d] * patch[d] * (c >> d & 1), r[3]));
      const clear = [pair.a, pair.b].every((v) =>
        [0, 1, 2, 3, 4, 5, 6, 7].every((c) => corner(v, c).every((p, d) => p >= 0 && p <= shape[d]))
      );
      const isTurned = pair.a.affine.some((row, r) => axes.some((c) => c !== r && row[c] !== 0));
      if (!clear || (isTurned ? false : seen % 2 === 1)) continue;
      seen++;
      turned += Number(isTurned);
      const a = align(await sampleView(volume, shape, pair.a), patch, pair.overlap.a);
      const b = align(await sampleView(volume, shape, pair.b), patch, pair.overlap.b);
      const worst = a.reduce((m, v, i) => Math.max(m, Math.abs(v - b[i])), 0);
      assert(worst < .05, `axis ${axis}, pair ${index}: ${worst} voxels apart`);
    }
  }
  assert(turned > 5, `${turned} turned pairs`);
});

Deno.test("sampling: a wrong buffer is refused", async () => {
  const view: View = { box: [0, 0, 0, 2, 2, 2], affine: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]] };
  await assertRejects(() => sampleView(new Float32Array(7), [2, 2, 2], view), UserError, "7 values");
  const bent = { ...view, affine: [[1, 0, 0, NaN], [0, 1, 0, 0], [0, 0, 1, 0]] };
  await assertRejects(() => sampleView(new Float32Array(8), [2, 2, 2], bent), UserError, "not finite");
});

Deno.test("intensity: blur, contrast, gamma and low resolution are those of NumPy and SciPy", async () => {
  const { data, shape } = tensors.get("intensity.x")!;
  const cases = {
    blur: [2, .8],
    contrast: [4, 1.2],
    gamma: [5, 1.3],
    invertedGamma: [6, .8],
    lowResolution: [7, .6],
  };
  for (const [kind, [number, a]] of Object.entries(cases)) {
    const values = data.slice();
    await applyIntensity(values, shape as Triple, [{ kind: kind as "blur", a, seed: 0 }]);
    near(values, tensors.get(`intensity.${number}`)!.data, 1e-4, kind);
  }
});

Deno.test("intensity: noise has its standard deviation, is a function of its seed, and Rician keeps signs", async () => {
  const shape: Triple = [32, 32, 32];
  const noise = async (kind: "gaussian" | "rician", fill: number, seed: number) => {
    const values = new Float32Array(32 ** 3).fill(fill);
    await applyIntensity(values, shape, [{ kind, a: .1, seed }]);
    return values;
  };
  const values = await noise("gaussian", 0, 1);
  const mean = values.reduce((s, v) => s + v, 0) / values.length;
  const std = Math.sqrt(values.reduce((s, v) => s + (v - mean) ** 2, 0) / values.length);
  assert(Math.abs(mean) < .003 && Math.abs(std - .1) < .002, `${mean} ${std}`);
  let lag = 0;
  for (let i = 1; i < values.length; i++) lag += values[i] * values[i - 1];
  assert(Math.abs(lag / values.length) < .0003, `${lag / values.length}`);
  assertEquals(await noise("gaussian", 0, 1), values);
  assert((await noise("gaussian", 0, 2)).some((v, i) => v !== values[i]));
  assert((await noise("rician", 0, 1)).every((v) => v === 0));
  assert((await noise("rician", -1, 1)).every((v) => v < 0));
});

Deno.test("intensity: draws are functions of their keys, differ between views, share the low resolution", () => {
  const counts: Record<string, number> = {};
  for (let index = 0; index < 4000; index++) {
    const [a, b] = [0, 1].map((view) => drawIntensity(1, index, view));
    assertEquals(drawIntensity(1, index, 0), a);
    for (const { kind } of a) counts[kind] = (counts[kind] ?? 0) + 1;
    const low = (list: typeof a) => list.filter((c) => c.kind === "lowResolution");
    assertEquals(low(a), low(b));
  }
  const shares = {
    rician: .05,
    gaussian: .05,
    blur: .1,
    brightness: .15,
    contrast: .15,
    invertedGamma: .1,
    gamma: .3,
  };
  for (const [kind, p] of Object.entries({ ...shares, lowResolution: .05 })) {
    assert(Math.abs(counts[kind] / 4000 - p) < .025, `${kind} ${counts[kind]}`);
  }
});
