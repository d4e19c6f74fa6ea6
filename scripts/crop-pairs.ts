/** Draws crop pairs of a store: one JSON line per pair, without end or `--count` of them, and a picture on request. */
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { UsageError } from "../lib/errors.ts";
import { drawPairs } from "../lib/data/pairs.ts";
import { Store } from "../lib/data/store.ts";
import { drawPair, readPatch, tooSmall } from "../lib/data/views.ts";
import { writeWhole } from "../lib/files.ts";
import { pairsPicture, type Shown } from "../lib/report/pairs.ts";

export const command: Command = {
  name: "crop-pairs",
  summary: `Draws pairs of overlapping crops: one JSON line {seed, index, volume, a, b, overlap} per pair.

Axes are z, y, x of the stored volume. A view a or b has box [lo z, y, x, hi z, y, x], the voxels that it covers before
it is turned or scaled, and affine, three rows of four numbers: edge coordinates of the view (0..patch) -> edge
coordinates of the volume, in voxels (0 is the outer face of the first voxel, flips, turns and scale are in it).
overlap.a and overlap.b are what both views show, [lo z, y, x, hi z, y, x] as fractions of each view.`,
  positionals: [{ name: "STORE", help: "volume store of preprocess", access: "read" }],
  flags: {
    count: { type: "integer", min: 1, help: "number of pairs (default: no end)" },
    patch: {
      type: "string",
      default: "160",
      help: "side of a view in voxels, or z, y, x as in 32x160x160",
    },
    seed: { type: "integer", min: 0, default: 0, help: "another seed, other pairs" },
    picture: { type: "string", access: "write", help: "PNG of the first pairs: boxes, overlap, both views" },
  },
};

/** Pairs that the picture shows. */
const PICTURED = 5;

async function main(
  { positionals: [path], flags: { count = Infinity, patch: sides, seed, picture } }: Arguments,
) {
  if (path === "-") {
    throw new UsageError("crop-pairs: STORE is a folder; pairs cannot be drawn from standard input");
  }
  const patch = readPatch(sides);
  const store = await Store.open(path);
  const small = tooSmall(store.volumes, patch);
  if (small) log(`crop-pairs: ${small}`);
  if (picture) {
    const shown: Shown[] = [];
    for (let index = 0; index < Math.min(PICTURED, count); index++) {
      const pair = drawPair(seed, index, store.volumes, patch);
      shown.push({ pair, volume: await store.read(pair.volume), shape: store.get(pair.volume)!.shape });
    }
    const canvas = await pairsPicture(shown);
    await writeWhole(picture, await canvas.png());
    log(`${picture}: per row the volume, view a (orange), view b (blue), what they share (yellow)`);
  }
  for await (const pair of drawPairs(store, patch, seed, { to: count })) writeLine(pair);
}

if (import.meta.main) await run(command, main);
