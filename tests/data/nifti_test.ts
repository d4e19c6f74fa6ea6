import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { readNifti, spacingOf, writeNifti } from "../../lib/data/nifti.ts";
import { UserError } from "../../lib/errors.ts";

interface Expected {
  read: Record<string, { shape: number[]; data: number[]; affine: number[][] }>;
  refused: string[];
}
const folder = new URL("../../fixtures/nifti/", import.meta.url);
const expected: Expected = JSON.parse(Deno.readTextFileSync(new URL("expected.json", folder)));
const bytesOf = (name: string) => Deno.readFileSync(new URL(name, folder));

function sameAffine(actual: number[][], wanted: number[][], name: string) {
  wanted.forEach((row, i) =>
    row.forEach((v, j) => assertAlmostEquals(actual[i][j], v, 2e-6 * (1 + Math.abs(v)), name))
  );
}

Deno.test("NIfTI: every type, byte order, version and form as nibabel reads it", async () => {
  for (const [name, want] of Object.entries(expected.read)) {
    const v = await readNifti(bytesOf(name), name);
    assertEquals(v.channels > 1 ? [v.channels, ...v.shape] : v.shape, want.shape, name);
    assertEquals(Array.from(v.data), want.data.map(Math.fround), name);
    sameAffine(v.affine, want.affine, name);
    assertEquals(v.header.length, name.startsWith("nifti2") ? 540 : 348);
  }
});

Deno.test("NIfTI: damaged, cut, dishonest and unsupported files are refused in one sentence that names them", async () => {
  for (const name of expected.refused) {
    const error = await assertRejects(() => readNifti(bytesOf(name), name), UserError, name);
    assert(error.message.length > name.length + 12 && error.message.length < 400, error.message);
  }
});

Deno.test("NIfTI: a pair needs its image", async () => {
  const file = bytesOf("f4.nii");
  const header = file.slice(0, 348);
  header[345] = "i".charCodeAt(0);
  new DataView(header.buffer).setFloat32(108, 0, true);
  const v = await readNifti(header, "a.hdr", file.slice(352));
  assertEquals(Array.from(v.data), expected.read["f4.nii"].data);
  await assertRejects(() => readNifti(header, "a.hdr"), UserError, ".img");
  await assertRejects(() => readNifti(header, "a.hdr", file.slice(352, 370)), UserError, "cut");
});

Deno.test("NIfTI: what is written comes back, with and without a header to follow", async () => {
  const data = Uint8Array.from({ length: 24 }, (_, i) => i * 9);
  for (
    const name of ["both.nii", "qform.nii", "i4_big.nii", "nifti2_big.nii.gz", "no_codes.nii", "metres.nii"]
  ) {
    const source = await readNifti(bytesOf(name), name);
    const file = await writeNifti({ shape: source.shape, data, affine: source.affine, like: source.header });
    const back = await readNifti(file, name);
    assertEquals(Array.from(back.data), Array.from(data));
    sameAffine(back.affine, source.affine, name);
  }
  const source = await readNifti(bytesOf("both.nii"), "both.nii");
  const { header } = await readNifti(await writeNifti({ ...source, data, like: source.header }), "back");
  for (const [from, to] of [[76, 108], [123, 124], [252, 328]]) {
    assertEquals(header.slice(from, to), source.header.slice(from, to));
  }
  for (
    const values of [
      data,
      Uint16Array.from(data, (v) => v * 200),
      Float32Array.from(data, (v) => v / 7),
    ]
  ) {
    const back = await readNifti(
      await writeNifti({ shape: [2, 4, 3], data: values, affine: source.affine }),
      "back",
    );
    assertEquals(Array.from(back.data), Array.from(values));
    sameAffine(back.affine, source.affine, "back");
  }
});

Deno.test("NIfTI: qform and sform of a written file agree for every axis order and a turn", async () => {
  const turn = (await readNifti(bytesOf("qform.nii"), "qform.nii")).affine;
  const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
  const affines = [turn];
  for (const order of orders) {
    for (let flips = 0; flips < 8; flips++) {
      const rows = order.map((j, i) =>
        [0, 1, 2].map((k) => k === j ? (flips >> i & 1 ? -1 : 1) * (k + 1) : 0)
      );
      affines.push([...rows.map((r, i) => [...r, 10 * i - 7]), [0, 0, 0, 1]]);
    }
  }
  for (const affine of affines) {
    const written = await readNifti(
      await writeNifti({ shape: [1, 1, 1], data: new Uint8Array(1), affine }),
      "w",
    );
    const header = written.header;
    new DataView(header.buffer).setInt16(254, 0, true); // no sform: the qform must say the same
    const plain = new Uint8Array(353);
    plain.set(header);
    const back = await readNifti(plain, "qform alone");
    sameAffine(back.affine, affine, JSON.stringify(affine));
    assertEquals(
      spacingOf(written.affine).map((s) => Math.round(s * 1e4)),
      back.spacing.map((s) => Math.round(s * 1e4)),
    );
  }
});
