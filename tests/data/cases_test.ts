import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { filesOf, gridOf, openDataset, readCase, toFile } from "../../lib/data/cases.ts";
import { writeNifti } from "../../lib/data/nifti.ts";
import { UserError } from "../../lib/errors.ts";

const shape: [number, number, number] = [4, 5, 6];
/** x runs to the left with 1 mm, y forward with 2 mm, z up with 1 mm. */
const affine = [[-1, 0, 0, 5], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
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
  const of = await readCase("a", images, { file: label, labels: set.labels });
  assertEquals([of.shape, await gridOf(images[0])], [[4, 10, 6], [4, 10, 6]]);
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
  const read = () => readCase("a", images, { file: label, labels: set.labels });
  await write(label, { shape: [4, 5, 5], data: new Uint8Array(100), affine });
  const error = await assertRejects(read, UserError, "4x5x6 and 4x5x5");
  assert(error.message.includes("a_0000.nii.gz") && error.message.includes("labelsTr"), error.message);
  await write(label, { shape, data: labels, affine: affine.map((row, r) => r === 1 ? [0, 2, 0, 1] : row) });
  await assertRejects(read, UserError, "affines differ");
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
      [{ labels: { lesion: 1 } }, '"background": 0'],
      [{ channel_names: undefined }, "channel_names"],
      [{ file_ending: ".mha" }, "file_ending"],
    ] as const
  ) {
    const folder = await dataset(change);
    assertThrows(() => openDataset(folder), UserError, says);
    await Deno.remove(folder, { recursive: true });
  }
  assertThrows(() => openDataset("/nowhere/at/all"), UserError, "dataset.json");
});
