/** Makes labelled brain-like volumes in the nnU-Net raw layout, so that everything runs with no download. */
import { type Arguments, type Command, run, writeLine } from "../lib/config.ts";
import { writePhantoms } from "../lib/data/phantom_dataset.ts";

export const command: Command = {
  name: "phantom",
  summary:
    "Makes labelled brain-like volumes: imagesTr, labelsTr, dataset.json (nnU-Net raw) and labels.csv.",
  positionals: [],
  flags: {
    out: { type: "string", short: "o", access: "write", help: "folder to write", default: "phantoms" },
    count: { type: "integer", default: 24, min: 1, help: "number of cases" },
    size: { type: "integer", default: 64, min: 16, max: 512, help: "voxels per axis, 1 mm each" },
    channels: { type: "integer", default: 1, min: 1, help: "images per case" },
    seed: { type: "integer", min: 0, default: 0, help: "another seed, other cases" },
  },
};

async function main({ flags }: Arguments): Promise<void> {
  const { out, count, size, channels, seed } = flags;
  for await (const line of writePhantoms(out, { count, size, channels, seed })) writeLine(line);
}

if (import.meta.main) await run(command, main);
