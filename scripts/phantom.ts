/** Makes labelled brain-like volumes in the nnU-Net raw layout, so that everything runs with no download. */
import { join } from "@std/path";
import { type Arguments, type Command, run, writeLine } from "../lib/config.ts";
import { writeNifti } from "../lib/data/nifti.ts";
import { CHANNELS, phantom } from "../lib/data/phantom.ts";

export const command: Command = {
  name: "phantom",
  summary:
    "Makes labelled brain-like volumes: imagesTr, labelsTr, dataset.json (nnU-Net raw) and labels.csv.",
  positionals: [],
  flags: {
    out: { type: "string", short: "o", access: "write", help: "folder to write", default: "phantoms" },
    count: { type: "integer", default: 24, min: 1, help: "number of cases" },
    size: { type: "integer", default: 64, min: 16, help: "voxels per axis, 1 mm each" },
    channels: { type: "integer", default: 1, min: 1, help: "images per case" },
    seed: { type: "integer", default: 0, help: "another seed, other cases" },
  },
};

/** Writes under a temporary name, then renames: no half file under a final name. */
async function write(path: string, bytes: Uint8Array): Promise<void> {
  await Deno.writeFile(`${path}.partial`, bytes);
  await Deno.rename(`${path}.partial`, path);
}

async function main({ flags }: Arguments): Promise<void> {
  const { out, count, size, channels, seed } = flags;
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
      await write(paths[c], await writeNifti({ shape, data, affine }));
    }
    const path = join(out, "labelsTr", `${name}.nii.gz`);
    await write(path, await writeNifti({ shape, data: label, affine }));
    table += `${name},${Number(enlarged)}\n`;
    const voxels = [1, 2].map((value) => label.reduce((n, v) => n + Number(v === value), 0));
    writeLine({ case: name, images: paths, label: path, class: Number(enlarged), voxels });
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
  const text = new TextEncoder();
  await write(join(out, "dataset.json"), text.encode(JSON.stringify(dataset, null, 2) + "\n"));
  await write(join(out, "labels.csv"), text.encode(table));
}

if (import.meta.main) await run(command, main);
