/** Labelled cases during fine-tuning: read once, kept in memory while there is room, cropped per step. */
import { type Case, type Dataset, filesOf, readCase } from "../data/cases.ts";
import { gunzip, isGzip } from "../data/gzip.ts";
import { Views } from "../data/images.ts";
import { parseHeader, readNifti } from "../data/nifti.ts";
import type { Recipe } from "../data/volume.ts";
import type { ModelInfo } from "../eval/model.ts";
import { Rng } from "../rng.ts";
import { volume } from "../tensor.ts";
import { crop, type Crops, sites, type Source } from "./patches.ts";

/** Prepared cases stay in memory up to this. */
const CACHE_BYTES = 2 ** 31;

/** @throws UserError for a NIfTI file whose first or last bytes show that it cannot be read */
async function checkFile(path: string): Promise<void> {
  using file = await Deno.open(path);
  const bytes = new Uint8Array(8192);
  const head = bytes.subarray(0, await file.read(bytes) ?? 0);
  const zipped = isGzip(head);
  const header = parseHeader(zipped ? gunzip(head, path, 2 ** 24, true) : head, path);
  const needed = header.offset + header.bytes;
  const { size } = await file.stat();
  if (!zipped && size >= needed) return;
  // A gzip file ends in the length of what it holds. One that differs is cut, or is of several members: it is read.
  const end = new Uint8Array(4);
  await file.seek(-4, Deno.SeekMode.End);
  await file.read(end);
  if (zipped && new DataView(end.buffer).getUint32(0, true) === needed) return;
  await readNifti(await Deno.readFile(path), path);
}

/** Cases prepared for training, least recently used first. */
export class Cases {
  #kept = new Map<string, { source: Promise<Source>; bytes: number }>();
  #bytes = 0;

  constructor(readonly dataset: Dataset, readonly recipe: Recipe) {}

  /** A case on the network's grid, with its label map in a segmentation. @throws UserError naming its file */
  read(id: string): Promise<Case> {
    const { labels, targets } = this.dataset;
    const { images, label } = filesOf(this.dataset, id);
    return readCase(id, images, this.recipe, targets ? undefined : { file: label, labels });
  }

  /** Looks at the files of `ids` without reading them whole. @throws UserError naming the first that is cut or no NIfTI */
  async check(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const { images, label } = filesOf(this.dataset, id);
      for (const path of this.dataset.targets ? images : [...images, label]) await checkFile(path);
    }
  }

  /** A case and its sites, from memory where it is there. */
  #source(id: string): Promise<Source> {
    const found = this.#kept.get(id);
    if (found) {
      this.#kept.delete(id);
      this.#kept.set(id, found);
      return found.source;
    }
    const entry = { bytes: 0, source: this.#load(id) };
    this.#kept.set(id, entry);
    return entry.source.then((source) => {
      const { image, target } = source.case;
      entry.bytes = image.byteLength + 2 * (target?.byteLength ?? 0);
      this.#bytes += entry.bytes;
      for (const [old, { bytes }] of this.#kept) {
        if (this.#bytes <= CACHE_BYTES || old === id) break;
        this.#kept.delete(old);
        this.#bytes -= bytes;
      }
      return source;
    });
  }

  async #load(id: string): Promise<Source> {
    const of = await this.read(id);
    return { case: of, sites: of.target ? sites(of.target, this.dataset.labels.length) : [] };
  }

  /** The crops of a step (from 0): a function of (seed, step). */
  async crops({ patch, batch, channels, train, seed }: ModelInfo, step: number): Promise<Crops> {
    const out = {
      views: new Views([...patch], { channels: channels.length }),
      labels: new Uint8Array(this.dataset.targets ? 0 : batch * volume(patch)),
      targets: new Float32Array(this.dataset.targets ? batch : 0),
    };
    try {
      for (let i = 0; i < batch; i++) {
        const rng = new Rng(seed, "crop", step, i);
        const id = train[rng.integer(train.length)];
        await crop(await this.#source(id), i, batch, out, rng);
        if (this.dataset.targets) out.targets[i] = this.dataset.targets.get(id)!;
      }
    } catch (error) {
      out.views[Symbol.dispose]();
      throw error;
    }
    return out;
  }
}
