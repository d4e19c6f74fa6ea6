import { assertAlmostEquals, assertEquals } from "@std/assert";
import { isotropic, resample, resampleLabels, turn, turned, turnOf } from "../../lib/data/regrid.ts";

/** Every affine whose axes are a signed permutation of RAS. */
function* orientations(): Generator<number[][]> {
  for (const order of [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]) {
    for (let bits = 0; bits < 8; bits++) {
      const rows = [[0, 0, 0, 5], [0, 0, 0, -3], [0, 0, 0, 7], [0, 0, 0, 1]];
      order.forEach((world, voxel) => rows[world][voxel] = (voxel + 1) * (bits >> voxel & 1 ? -1 : 1));
      yield rows;
    }
  }
}

Deno.test("regrid: all 48 orientations come to RAS and back, voxel for voxel", () => {
  const shape = [2, 3, 4] as const;
  let n = 0;
  for (const affine of orientations()) {
    n++;
    const how = turnOf(affine);
    // Channels hold the world coordinates of each voxel.
    const data = new Float32Array(24 * 3);
    for (let z = 0, i = 0; z < 2; z++) {
      for (let y = 0; y < 3; y++) {
        for (let x = 0; x < 4; x++) {
          for (let r = 0; r < 3; r++) {
            data[i++] = affine[r][0] * x + affine[r][1] * y + affine[r][2] * z + affine[r][3];
          }
        }
      }
    }
    const ras = turn(data, shape, 3, how);
    const [nz, ny, nx] = turned(shape, how);
    const at = (z: number, y: number, x: number, c: number) => ras[((z * ny + y) * nx + x) * 3 + c];
    for (let x = 1; x < nx; x++) assertEquals(at(0, 0, x, 0) > at(0, 0, x - 1, 0), true);
    for (let y = 1; y < ny; y++) assertEquals(at(0, y, 0, 1) > at(0, y - 1, 0, 1), true);
    for (let z = 1; z < nz; z++) assertEquals(at(z, 0, 0, 2) > at(z - 1, 0, 0, 2), true);
    assertEquals(turn(ras, shape, 3, how, true), data);
  }
  assertEquals(n, 48);
});

Deno.test("regrid: a linear ramp stays one on a finer and a coarser grid", () => {
  const ramp = Float32Array.from({ length: 4 * 6 * 8 }, (_, i) => i % 8 + 0.5);
  const fine = resample(ramp, [4, 6, 8], [4, 9, 16], 1);
  for (let x = 1; x < 15; x++) assertAlmostEquals(fine[x], (x + 0.5) / 2, 1e-5);
  const coarse = resample(ramp, [4, 6, 8], [2, 6, 4], 1);
  for (let x = 0; x < 4; x++) assertAlmostEquals(coarse[x], (x + 0.5) * 2, 1e-5);
  assertEquals(isotropic([10, 20, 30], [2, 0.5, 1.001]), [20, 10, 30]);
});

Deno.test("regrid: labels go to twice the grid and back unchanged", () => {
  const labels = Uint8Array.from({ length: 60 }, (_, i) => (i * 7) % 5);
  assertEquals(resampleLabels(resampleLabels(labels, [3, 4, 5], [6, 8, 10]), [6, 8, 10], [3, 4, 5]), labels);
});
