/**
 * Batches for pretraining, prepared while the caller computes. The content of a batch is a pure function of (seed, step):
 * how far the loader is ahead, and whether pairs come from a pipe or are drawn here, changes no bit.
 */
import { UserError } from "../errors.ts";
import { Ahead } from "./ahead.ts";
import { changed, drawBent, drawReversal } from "./amaes.ts";
import { applyIntensity, drawIntensity } from "./augment.ts";
import { ViewBatch, Views } from "./images.ts";
import { type Elastic, sampleView } from "./sample.ts";
import {
  type Box,
  drawPair,
  drawSingle,
  type Extent,
  type Pair,
  type PairDefect,
  type Triple,
  type View,
} from "./views.ts";

/** Input of one training step. */
export interface Batch {
  /** [n, z, y, x]; n = batch, or 2 * batch: all first views, then all second ones. */
  readonly images: Float32Array;
  /** What the network gets of each image where its intensities are changed (AMAES); absent: the images. */
  inputs?: Float32Array;
  /** [n, 6]: the common part, lo z, y, x, hi z, y, x, as fractions of each view; empty for single views. */
  overlap: Float32Array;
  /** Volume of each image. */
  ids: string[];
  /** What makes the images where that is part of the step (`imagesOf`); the loader frees it with the next batch. */
  readonly views?: Views;
}

/** What the loader reads volumes from: a Store. */
export interface Source {
  readonly volumes: readonly Extent[];
  get(id: string): Extent | undefined;
  read(id: string): Promise<Float32Array>;
}

/** Options of a Loader. */
export interface LoaderOptions {
  store: Source;
  patch: Triple;
  /** Images (or pairs) per step. */
  batch: number;
  seed: number;
  /** 2: crop pairs, with intensity changes; 1: single views, turned and scaled only. */
  views: 1 | 2;
  /** Single views with the augmentation of AMAES: `inputs` are the images with changed intensities. */
  reversal?: boolean;
  /** Index of the first step, for a run that goes on. */
  start?: number;
  /** Pairs from a file or a pipe instead of those of `seed`; the first `start * batch` are skipped. */
  pairs?: AsyncIterable<Pair>;
  /** What pairs drawn here repeat of the published code. */
  defects?: readonly PairDefect[];
  /** False: crops only (validation). */
  augment?: boolean;
  /** Batches prepared ahead. */
  ahead?: number;
  /** Images are made with the step, by the device that computes it, instead of here. */
  later?: boolean;
}

/** One view to sample, where it goes in the batch, and the keys of its intensity changes. */
interface Job {
  volume: string;
  view: View;
  slot: number;
  overlap?: Box;
  key?: [seed: number, index: number, view: number];
  elastic?: Elastic;
}

/** Prepares batches in order, `ahead` of the caller. Close it when done. */
export class Loader {
  readonly #options: Required<Omit<LoaderOptions, "pairs">>;
  readonly #pairs?: AsyncIterator<Pair>;
  readonly #batches: Ahead<Batch>;
  #read = 0;
  #closed = false;

  constructor(options: LoaderOptions) {
    const { pairs, ...rest } = options;
    this.#options = {
      start: 0,
      augment: true,
      ahead: 2,
      defects: [],
      reversal: false,
      later: false,
      ...rest,
    };
    this.#pairs = pairs?.[Symbol.asyncIterator]();
    const { start, ahead } = this.#options;
    this.#batches = new Ahead((step) => this.#make(step), start, Infinity, ahead);
  }

  /** Seconds that the caller has waited for batches so far. */
  get waited(): number {
    return this.#batches.waited;
  }

  /** The next batch; the one before it is done with. @throws UserError when the piped pairs are used up, for a bad pair or a damaged volume */
  next(): Promise<Batch> {
    return this.#batches.next();
  }

  /** Ends preparation and lets go of the pairs; a pipe that is silent is not waited for. */
  async close(): Promise<void> {
    this.#closed = true;
    const all = this.#batches.close();
    if (this.#pairs) this.#pairs.return?.()?.catch(() => {});
    else await all;
  }

  /** While a step computes: sends what the next batch needs to the device, if it is cut out by now. */
  ahead(): void {
    this.#batches.send();
  }

  /** Pair `index` of the pipe: pairs before it are read and dropped. */
  async #piped(index: number, step: number): Promise<Pair> {
    for (;;) {
      const { value, done } = await this.#pairs!.next();
      if (done) {
        throw new UserError(
          `pairs: there are ${this.#read}, step ${step + 1} needs ${
            (step + 1) * this.#options.batch
          }; draw more (crop-pairs without --count never ends), or start again with --steps ${step}`,
        );
      }
      if (this.#read++ === index) return value;
    }
  }

  async #jobs(step: number): Promise<Job[]> {
    const { store, patch, batch, seed, views, augment, defects, reversal } = this.#options;
    const jobs: Job[] = [];
    for (let i = 0; i < batch; i++) {
      const index = step * batch + i;
      if (views === 1) {
        const draw = reversal ? drawBent : drawSingle;
        const single = draw(seed, index, store.volumes, patch, augment);
        jobs.push({ ...single, slot: i, key: reversal && augment ? [seed, index, 0] : undefined });
        continue;
      }
      const pair = this.#pairs
        ? await this.#piped(index, step)
        : drawPair(seed, index, store.volumes, patch, augment, defects);
      (["a", "b"] as const).forEach((name, v) =>
        jobs.push({
          volume: pair.volume,
          view: pair[name],
          slot: v * batch + i,
          overlap: pair.overlap[name],
          key: augment ? [pair.seed, pair.index, v] : undefined,
        })
      );
    }
    return jobs;
  }

  async #make(step: number): Promise<Batch> {
    const { store, patch, batch, views, reversal, later } = this.#options;
    const [n, size] = [batch * views, patch[0] * patch[1] * patch[2]];
    const overlap = new Float32Array(views === 2 ? n * 6 : 0);
    const ids = new Array<string>(n);
    if (later) {
      const made = new Views(patch, { reversal });
      for (const job of await this.#jobs(step)) {
        if (this.#closed) break;
        const [voxels, { shape }] = [await store.read(job.volume), store.get(job.volume)!];
        const { elastic, key } = job;
        const drawn = !key ? [] : reversal ? drawReversal(key[0], key[1], patch) : drawIntensity(...key);
        await made.add(job.slot, voxels, shape, job.view, { changes: drawn, elastic, least: reversal });
        if (job.overlap) overlap.set(job.overlap, job.slot * 6);
        ids[job.slot] = job.volume;
      }
      return new ViewBatch(made, overlap, ids);
    }
    const images = new Float32Array(n * size);
    const inputs = reversal ? new Float32Array(images.length) : undefined;
    for (const job of await this.#jobs(step)) {
      if (this.#closed) break;
      const shape = store.get(job.volume)!.shape;
      const image = images.subarray(job.slot * size, (job.slot + 1) * size);
      const { elastic } = job;
      await sampleView(await store.read(job.volume), shape, job.view, image, 3, { least: reversal, elastic });
      if (inputs) {
        const changes = job.key ? drawReversal(job.key[0], job.key[1], patch) : [];
        inputs.set(await changed(image, patch, changes), job.slot * size);
      } else if (job.key) await applyIntensity(image, patch, drawIntensity(...job.key));
      if (job.overlap) overlap.set(job.overlap, job.slot * 6);
      ids[job.slot] = job.volume;
    }
    return { images, inputs, overlap, ids };
  }
}
