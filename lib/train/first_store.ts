/** The newcomer's data: phantoms, prepared like any scan, kept for the next time. */
import { join } from "@std/path";
import { log } from "../config.ts";
import { findInputs } from "../data/inputs.ts";
import type { Source } from "../data/loader.ts";
import { writePhantoms } from "../data/phantom_dataset.ts";
import { preprocess } from "../data/preprocess.ts";
import { StoreWriter } from "../data/store.ts";

const PHANTOMS = { count: 24, size: 64, channels: 1, seed: 0 };

/** Makes phantoms and a store of them below `folder` where they are not there yet; returns the store's path. */
export async function firstStore(folder: string): Promise<string> {
  const [raw, store] = [join(folder, "raw"), join(folder, "store")];
  log(`no STORE given: ${PHANTOMS.count} phantoms are made and prepared in ${folder}`);
  await Deno.mkdir(folder, { recursive: true });
  for await (const _ of writePhantoms(raw, PHANTOMS)) { /* each case is written as it comes */ }
  const writer = await StoreWriter.open(store);
  for await (
    const _ of preprocess(writer, await findInputs([join(raw, "imagesTr")], []), "onemmiso")
  ) { /* likewise */ }
  writer.compact();
  return store;
}

/** A volume of zeros in memory, `side` voxels per axis: times steps where nothing may be written. */
export function blankStore(side: number): Source & { hash(): Promise<string>; recipe?: string } {
  const volume = { id: "blank", shape: [side, side, side] as [number, number, number] };
  return {
    volumes: [volume],
    get: () => volume,
    read: () => Promise.resolve(new Float32Array(side ** 3)),
    hash: () => Promise.resolve("none"),
  };
}
