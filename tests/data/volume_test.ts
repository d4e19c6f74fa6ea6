import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { NiftiFile, type PreparedVolume, type Recipe } from "../../lib/data/volume.ts";
import { UserError } from "../../lib/errors.ts";
import { native } from "../../lib/native/library.ts";

const FIXTURES = fromFileUrl(new URL("../../fixtures", import.meta.url));

async function prepare(
  bytes: Uint8Array,
  image?: Uint8Array,
  recipe: Recipe = "onemmiso",
): Promise<PreparedVolume & { bits: Uint16Array }> {
  using file = await NiftiFile.decode(bytes, image);
  assertEquals(file.channels, 1);
  return await file.prepare(recipe);
}

/** Header fields set in a copy of a little-endian NIfTI-1 file. */
function edited(
  bytes: Uint8Array,
  fields: { i16?: Record<number, number>; f32?: Record<number, number> },
): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  for (const [at, v] of Object.entries(fields.i16 ?? {})) view.setInt16(Number(at), v, true);
  for (const [at, v] of Object.entries(fields.f32 ?? {})) view.setFloat32(Number(at), v, true);
  return copy;
}

/** A float32 NIfTI-1 file of `size` x, y, z voxels. */
function file(size: number[], value: (i: number) => number, spacing: number[] = [1, 1, 1]): Uint8Array {
  const n = size.reduce((a, b) => a * b);
  const bytes = new Uint8Array(352 + 4 * n);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, 348, true);
  bytes.set(new TextEncoder().encode("n+1\0"), 344);
  for (let i = 0; i < n; i++) view.setFloat32(352 + 4 * i, value(i), true);
  const dims = [size.length, ...size].map((v, i) => [40 + 2 * i, v]);
  const steps = [1, ...spacing].map((v, i) => [76 + 4 * i, v]);
  return edited(bytes, {
    i16: { ...Object.fromEntries(dims), 70: 16, 72: 32 },
    f32: { ...Object.fromEntries(steps), 108: 352 },
  });
}

Deno.test("volumes are what scikit-image and nibabel make of them", async () => {
  const { cases } = JSON.parse(await Deno.readTextFile(join(FIXTURES, "volumes.json")));
  for (const { name, recipe, file, image, shape, affine, data } of cases) {
    const picture = image ? Uint8Array.fromBase64(image) : undefined;
    const got = await prepare(Uint8Array.fromBase64(file), picture, recipe);
    assertEquals(got.shape, shape, name);
    got.affine.flat().forEach((v, i) => assertAlmostEquals(v, affine.flat()[i], 1e-5, `${name} affine`));
    const want = new Float32Array(Uint8Array.fromBase64(data).buffer);
    const values = new Float32Array(new Float16Array(got.bits.buffer as ArrayBuffer));
    want.forEach((v, i) => {
      const error = Math.abs(values[i] - v);
      assert(error < 6e-4 * Math.max(1, Math.abs(v)), `${name}, voxel ${i}: ${values[i]} instead of ${v}`);
    });
  }
  assertEquals(native().vx_live_volumes(), 0);
});

Deno.test("odd files: read as nibabel reads them, or refused", async () => {
  const { read, refused } = JSON.parse(await Deno.readTextFile(join(FIXTURES, "nifti", "expected.json")));
  for (const [name, want] of Object.entries<{ data: number[]; shape: number[] }>(read)) {
    using file = await NiftiFile.decode(await Deno.readFile(join(FIXTURES, "nifti", name)));
    const volume = want.data.slice(0, want.data.length / file.channels);
    const got = await file.prepare("onemmiso").catch((error) => error as UserError);
    // A voxel of two metres is read and then refused for its size.
    if (name === "metres.nii") assert(got instanceof UserError && got.message.includes("at 1 mm"));
    else if (got instanceof UserError) throw new Error(`${name}: ${got.message}`);
    if (got instanceof UserError) continue;
    const inside = volume.filter((v) => v !== 0);
    if (inside.length < volume.length) continue;
    const mean = volume.reduce((a, b) => a + b) / volume.length;
    const { statistics } = got;
    const close = (a: number, b: number) =>
      assert(Math.abs(a - b) <= 1e-6 * Math.abs(b) + 1e-9, `${name}: ${a}, ${b}`);
    close(statistics.min, Math.min(...volume));
    close(statistics.max, Math.max(...volume));
    assert(Math.abs(statistics.mean - mean) <= 1e-5 * Math.max(...volume.map(Math.abs)), name);
  }
  for (const name of refused) {
    const bytes = await Deno.readFile(join(FIXTURES, "nifti", name));
    const error = await assertRejects(() => prepare(bytes), UserError);
    assert(error.message.length > 10 && !error.message.includes("internal"), `${name}: ${error.message}`);
  }
  assertEquals(native().vx_live_volumes(), 0);
});

Deno.test("several volumes in one file, trailing axes of 1", async () => {
  using four = await NiftiFile.decode(file([3, 2, 2, 1, 2], (i) => i + 1));
  assertEquals(four.channels, 2);
  assertEquals((await four.prepare("onemmiso", 1)).statistics.min, 13);
  using one = await NiftiFile.decode(file([3, 2, 2, 1, 1], (i) => i + 1));
  assertEquals(one.channels, 1);
});

Deno.test("metres and micrometres are millimetres", async () => {
  for (const [code, step] of [[1, 0.002], [3, 2000], [2, 2]]) {
    const bytes = file([4, 4, 4], (i) => i + 1, [step, step, step]);
    bytes[123] = code;
    assertEquals((await prepare(bytes)).shape, [8, 8, 8]);
  }
});

Deno.test("a header is not believed: spacing that explodes, sizes that are not there", async () => {
  const good = file([4, 4, 4], (i) => i + 1);
  await assertRejects(
    () => prepare(file([4, 4, 4], (i) => i + 1, [900, 900, 900])),
    UserError,
    "correct the header",
  );
  await assertRejects(
    () => prepare(file([4, 4, 4], (i) => i + 1, [1e-6, 1, 1])),
    UserError,
    "is no voxel size",
  );
  await assertRejects(
    () => prepare(edited(good, { i16: { 42: 30000, 44: 30000, 46: 30000 } })),
    UserError,
    "cut",
  );
  await assertRejects(() => prepare(file([4, 4, 4], () => 0)), UserError, "every voxel is 0");
});

Deno.test("a constant volume becomes zeros", async () => {
  for (const recipe of ["onemmiso", "amaes"] as const) {
    const { bits } = await prepare(file([3, 3, 3], () => 7), undefined, recipe);
    assert(bits.every((b) => b === 0));
  }
});
