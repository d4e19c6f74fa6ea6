/** Draws crop pairs of a store: one JSON line per pair, without end or `--count` of them, and a picture on request. */
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { UsageError } from "../lib/errors.ts";
import { drawPairs } from "../lib/data/pairs.ts";
import { Store } from "../lib/data/store.ts";
import { drawPair, type Triple } from "../lib/data/views.ts";
import { writeWhole } from "../lib/files.ts";
import { pairsPicture, type Shown } from "../lib/report/pairs.ts";

export const command: Command = {
  name: "crop-pairs",
  summary: "Draws pairs of overlapping crops: one JSON line {seed, index, volume, a, b, overlap} per pair.",
  positionals: [{ name: "STORE", help: "volume store of preprocess", access: "read" }],
  flags: {
    count: { type: "integer", min: 1, help: "number of pairs (default: no end)" },
    patch: { type: "integer", default: 160, min: 2, help: "side of a view in voxels" },
    seed: { type: "integer", min: 0, default: 0, help: "another seed, other pairs" },
    picture: { type: "string", access: "write", help: "PNG of the first pairs: boxes, overlap, both views" },
  },
};

/** Pairs that the picture shows. */
const PICTURED = 5;

async function main(
  { positionals: [path], flags: { count = Infinity, patch: side, seed, picture } }: Arguments,
) {
  if (path === "-") {
    throw new UsageError("crop-pairs: STORE is a folder; pairs cannot be drawn from standard input");
  }
  const store = await Store.open(path);
  const patch: Triple = [side, side, side];
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
