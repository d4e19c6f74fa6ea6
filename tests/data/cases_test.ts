import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { filesOf, gridOf, openDataset, readCase, toFile } from "../../lib/data/cases.ts";
import { writeNifti } from "../../lib/data/nifti.ts";
import { NiftiFile, RECIPES } from "../../lib/data/volume.ts";
import { UserError } from "../../lib/errors.ts";
import { argmax, probabilities } from "../../lib/eval/segmenter.ts";

const shape: [number, number, number] = [4, 5, 6];
/** x runs to the left with 1 mm, y forward with 2 mm, z up with 1 mm. */
const affine = [[-1, 0, 0, 5], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
const identity = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
const values = Float32Array.from({ length: 120 }, (_, i) => (i * 37) % 50);
const labels = Uint8Array.from({ length: 120 }, (_, i) => i % 7 === 0 ? 4 : 0);

async function dataset(change: Record<string, unknown> = {}): Promise<string> {
  const folder = await Deno.makeTempDir();
  for (const name of ["imagesTr", "labelsTr"]) await Deno.mkdir(join(folder, name));
  const json = { channel_names: { 0: "T1", 1: "T2" }, labels: { background: 0, lesion: 4 }, ...change };
  await Deno.writeTextFile(join(folder, "dataset.json"), JSON.stringify(json));
  for (const c of [0, 1]) {
    const data = values.map((v) => v * (c + 1) + c);
    await Deno.writeFile(
      join(folder, "imagesTr", `a_000${c}.nii.gz`),
      await writeNifti({ shape, data, affine }),
    );
  }
  await Deno.writeFile(
    join(folder, "labelsTr", "a.nii.gz"),
    await writeNifti({ shape, data: labels, affine }),
  );
  return folder;
}

Deno.test("cases: two channels come z-scored to RAS and 1 mm, labels as classes, and back to the file", async () => {
  const folder = await dataset();
  const set = openDataset(folder);
  assertEquals([set.cases, set.labels, set.labelNames], [["a"], [0, 4], ["background", "lesion"]]);
  const { images, label } = filesOf(set, "a");
  const of = await readCase("a", images, "onemmiso", { file: label, labels: set.labels });
  assertEquals([of.shape, await gridOf(images, "onemmiso")], [[4, 10, 6], [4, 10, 6]]);
  assertEquals(of.truth, labels.map((v) => v / 4));
  // Both channels are the same up to an affine change of intensity, which z-scoring undoes.
  for (let i = 0; i < of.image.length; i += 2) assertAlmostEquals(of.image[i], of.image[i + 1], 1e-4);
  assertEquals(of.target![0], of.truth![5]);
  const logits = Float32Array.from(of.target!);
  assertEquals(Uint8Array.from(toFile(logits, of, 1), Math.round), of.truth);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("cases: another grid, an unknown label and a missing channel are refused by name", async () => {
  const folder = await dataset();
  const set = openDataset(folder);
  const { images, label } = filesOf(set, "a");
  const write = async (file: string, made: Parameters<typeof writeNifti>[0]) =>
    await Deno.writeFile(file, await writeNifti(made));
  const read = () => readCase("a", images, "onemmiso", { file: label, labels: set.labels });
  await write(label, { shape: [4, 5, 5], data: new Uint8Array(100), affine });
  const error = await assertRejects(read, UserError, "the shape is 4 x 5 x 5, that of");
  assert(error.message.includes("a_0000.nii.gz") && error.message.includes("labelsTr"), error.message);
  await write(label, { shape, data: labels, affine: affine.map((row, r) => r === 1 ? [0, 2, 0, 1] : row) });
  await assertRejects(read, UserError, "mm away");
  await write(label, { shape, data: labels.map((v) => v && 3), affine });
  await assertRejects(read, UserError, "the value 3");
  await Deno.remove(images[1]);
  assertThrows(() => openDataset(folder), UserError, "a_0001.nii.gz");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("cases: dataset.json is checked field by field", async () => {
  for (
    const [change, says] of [
      [{ labels: { background: 0, whole: [1, 2] } }, 'label "whole"'],
      [{ labels: { background: 0, lesion: 4, ignore: 5 } }, '"ignore"'],
      [{ labels: { lesion: 1 } }, '"background": 0'],
      [{ channel_names: undefined }, "channel_names"],
      [{ file_ending: ".mha" }, "file_ending"],
    ] as const
  ) {
    const folder = await dataset(change);
    assertThrows(() => openDataset(folder), UserError, says);
    await Deno.remove(folder, { recursive: true });
  }
  const decathlon = await dataset({
    channel_names: undefined,
    modality: { 0: "T1", 1: "T2" },
    labels: { 0: "background", 4: "lesion" },
  });
  const { labels: values, labelNames, channels } = openDataset(decathlon);
  assertEquals([values, labelNames, channels], [[0, 4], ["background", "lesion"], ["T1", "T2"]]);
  await Deno.remove(decathlon, { recursive: true });
  assertThrows(() => openDataset("/nowhere/at/all"), UserError, "dataset.json");
});

/** A block of values in air, as a file of 0.8 x 1.5 x 1.25 mm whose axes run y, x, z. */
const block = { shape: [10, 14, 12], low: [2, 3, 1], high: [8, 12, 10] } as const;
const oblique = [[0, -1.5, 0, 3], [0.8, 0, 0, -2], [0, 0, 1.25, 7], [0, 0, 0, 1]];
function inAir(high: readonly number[], scale: number): Float32Array {
  const [nz, ny, nx] = block.shape;
  return Float32Array.from({ length: nz * ny * nx }, (_, i) => {
    const at = [Math.floor(i / (ny * nx)), Math.floor(i / nx) % ny, i % nx];
    return at.every((v, a) => v >= block.low[a] && v < high[a]) ? scale * (100 + (i * 37) % 90) : 0;
  });
}

Deno.test("cases: one channel is prepared as preprocess prepares it, by either recipe", async () => {
  const file = await Deno.makeTempFile({ suffix: "_0000.nii.gz" });
  const bytes = await writeNifti({ shape: [...block.shape], data: inAir(block.high, 1), affine: oblique });
  await Deno.writeFile(file, bytes);
  for (const recipe of RECIPES) {
    using nifti = await NiftiFile.decode(bytes);
    const stored = await nifti.prepare(recipe);
    const of = await readCase("a", [file], recipe);
    assertEquals([of.shape, await gridOf([file], recipe)], [stored.shape, stored.shape]);
    const expected = new Float32Array(new Float16Array(stored.bits.buffer as ArrayBuffer));
    of.image.forEach((v, i) => assertAlmostEquals(v, expected[i], 2e-3));
    // Every voxel of the box comes back to its place, and the air around is background.
    const grid = of.shape[0] * of.shape[1] * of.shape[2];
    const back = toFile(new Float32Array(2 * grid).map((_, i) => i % 2), of, 2);
    const box = inAir(block.high, 1).map((v) => v && 1);
    const predicted = argmax(back, 2);
    if (recipe === "onemmiso") assertEquals([...predicted], [...box]);
    else box.forEach((v, i) => assert(predicted[i] >= v));
    assertEquals(probabilities(back, 2)[0], 1);
  }
  await Deno.remove(file);
});

Deno.test("cases: channels share the box of all, and each is z-scored inside it", async () => {
  const folder = await Deno.makeTempDir();
  const files = [0, 1].map((c) => join(folder, `a_000${c}.nii.gz`));
  const [wide, flat] = [inAir(block.high, 1), inAir([6, 9, 8], 3)];
  for (const [c, data] of [wide, flat].entries()) {
    await Deno.writeFile(files[c], await writeNifti({ shape: [...block.shape], data, affine: identity }));
  }
  const of = await readCase("a", files, "onemmiso");
  assertEquals(of.file.box, { low: [...block.low], high: [...block.high] });
  assertEquals(of.shape, [6, 9, 9]);
  for (const [c, data] of [wide, flat].entries()) {
    const inside: number[] = [];
    const [, ny, nx] = block.shape;
    for (let z = block.low[0]; z < block.high[0]; z++) {
      for (let y = block.low[1]; y < block.high[1]; y++) {
        for (let x = block.low[2]; x < block.high[2]; x++) inside.push(data[(z * ny + y) * nx + x]);
      }
    }
    const mean = inside.reduce((a, b) => a + b) / inside.length;
    const sd = Math.sqrt(inside.reduce((sum, v) => sum + (v - mean) ** 2, 0) / inside.length);
    inside.forEach((v, i) => assertAlmostEquals(of.image[2 * i + c], (v - mean) / sd, 1e-5));
  }
  for (const file of files) {
    const data = new Float32Array(wide.length);
    await Deno.writeFile(file, await writeNifti({ shape: [...block.shape], data, affine: identity }));
  }
  await assertRejects(() => readCase("a", files, "onemmiso"), UserError, "a_0000.nii.gz: every voxel is 0");
  await Deno.remove(folder, { recursive: true });
});
