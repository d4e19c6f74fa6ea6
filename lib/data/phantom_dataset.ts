/** Phantoms as an nnU-Net raw dataset on disk. */
import { join } from "@std/path";
import { writeWhole } from "../files.ts";
import { writeNifti } from "./nifti.ts";
import { CHANNELS, phantom } from "./phantom.ts";

/** How many phantoms of which size. */
export interface PhantomOptions {
  count: number;
  /** Side of the cubic volumes in voxels of 1 mm. */
  size: number;
  channels: number;
  seed: number;
}

/** One case as written: paths, class and voxels of labels 1 and 2. */
export interface PhantomCase {
  case: string;
  images: string[];
  label: string;
  class: number;
  voxels: number[];
}

/** Writes imagesTr, labelsTr, dataset.json and labels.csv into `out`; gives each case when it is on disk. */
export async function* writePhantoms(
  out: string,
  { count, size, channels, seed }: PhantomOptions,
): AsyncGenerator<PhantomCase> {
  for (const folder of ["imagesTr", "labelsTr"]) await Deno.mkdir(join(out, folder), { recursive: true });
  const middle = (1 - size) / 2;
  const affine = [[1, 0, 0, middle], [0, 1, 0, middle], [0, 0, 1, middle], [0, 0, 0, 1]];
  let table = "case,label\n";
  for (let index = 0; index < count; index++) {
    const name = `phantom_${String(index).padStart(3, "0")}`;
    const { shape, images, label, enlarged } = phantom(seed, index, size, channels);
    const paths: string[] = [];
    for (const [c, data] of images.entries()) {
      paths.push(join(out, "imagesTr", `${name}_${String(c).padStart(4, "0")}.nii.gz`));
      await writeWhole(paths[c], await writeNifti({ shape, data, affine }));
    }
    const path = join(out, "labelsTr", `${name}.nii.gz`);
    await writeWhole(path, await writeNifti({ shape, data: label, affine }));
    table += `${name},${Number(enlarged)}\n`;
    const voxels = [1, 2].map((value) => label.reduce((n, v) => n + Number(v === value), 0));
    yield { case: name, images: paths, label: path, class: Number(enlarged), voxels };
  }
  const dataset = {
    name: "Phantom",
    channel_names: Object.fromEntries(
      Array.from({ length: channels }, (_, c) => [c, CHANNELS[c] ?? `C${c}`]),
    ),
    labels: { background: 0, ventricles: 1, nuclei: 2 },
    numTraining: count,
    file_ending: ".nii.gz",
  };
  await writeWhole(join(out, "dataset.json"), JSON.stringify(dataset, null, 2) + "\n");
  await writeWhole(join(out, "labels.csv"), table);
}
