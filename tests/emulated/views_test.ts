/** Views made on the emulated card with the step, beside those that the loader makes on the CPU. */
import { assert, assertEquals } from "@std/assert";
import { KIND_NAMES } from "../../lib/data/augment.ts";
import { type Treatment, Views } from "../../lib/data/images.ts";
import { Loader } from "../../lib/data/loader.ts";
import type { Triple, View } from "../../lib/data/views.ts";
import { deviceReport } from "../../lib/device.ts";
import { noise } from "../../lib/gpu/parity.ts";
import { method } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, memory, scope, wait } from "../../lib/tensor.ts";
import { crop } from "../../lib/train/patches.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { tiny, tinyRun } from "../parity/tiny.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();

/** Blobs, so that interpolation matters and the range is not that of noise. */
function blobs([z, y, x]: Triple): Float32Array {
  const grain = noise(z * y * x, 3);
  return grain.map((v, i) => Math.sin(i % x / 3) * Math.cos(Math.floor(i / x) % y / 4) + 0.2 * v);
}

const VOLUMES = [{ id: "a", shape: [26, 30, 24] as Triple }, { id: "b", shape: [15, 20, 33] as Triple }];
const voxels = new Map(VOLUMES.map(({ id, shape }) => [id, blobs(shape)]));
const store = {
  volumes: VOLUMES,
  get: (id: string) => VOLUMES.find((v) => v.id === id),
  read: (id: string) => Promise.resolve(voxels.get(id)!),
};

/** Largest difference relative to the largest value. */
function off(got: Float32Array, want: Float32Array): number {
  const size = want.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  return got.reduce((m, v, i) => Math.max(m, Math.abs(v - want[i])), 0) / size;
}

const WAYS: Record<string, number[][]> = {
  "a crop": [[1, 0, 0, 3], [0, 1, 0, 5], [0, 0, 1, -2]],
  "a mirrored crop": [[-1, 0, 0, 17], [0, 1, 0, 5], [0, 0, -1, 20]],
  "turned and scaled": [[0.9, 0.3, 0, 1], [-0.3, 0.8, 0.1, 5], [0, -0.1, 1.2, 2.5]],
};

Deno.test({
  name: "emulated card: a view is as on the CPU (1e-5), with every change of intensity (5e-5)",
  ignore,
  async fn() {
    const { id, shape } = VOLUMES[0];
    const patch: Triple = [12, 9, 17];
    const made = async (affine: number[][], treatment: Treatment, gpu: boolean, reversal = false) => {
      native().vx_device_use(gpu);
      using views = new Views(patch, { reversal });
      await views.add(0, voxels.get(id)!, shape, { affine } as View, treatment);
      return views.read(reversal);
    };
    for (const [way, affine] of Object.entries(WAYS)) {
      for (const elastic of [undefined, { sigma: 4, alpha: 40, seed: 7 }]) {
        const treatment = { changes: [], elastic, least: true };
        const tolerance = elastic || way === "turned and scaled" ? 1e-5 : 0;
        const error = off(await made(affine, treatment, true), await made(affine, treatment, false));
        assert(error <= tolerance, `${way}${elastic ? ", bent" : ""}: ${error}`);
      }
    }
    for (const kind of KIND_NAMES) {
      const numbers = { ringing: [9, 1], ghosting: [0.9, 0, 3], biasField: [3, 4, 5] };
      const [a, ...more] = numbers[kind as keyof typeof numbers] ?? [0.7];
      const treatment = { changes: [{ kind, a, more, seed: 4e9 }] };
      for (const reversal of [false, true]) {
        const affine = WAYS["turned and scaled"];
        const want = await made(affine, treatment, false, reversal);
        const error = off(await made(affine, treatment, true, reversal), want);
        assert(error < 5e-5, `${kind}: ${error}`);
      }
    }
    await wait();
    assertEquals(memory().bytes, 0);
  },
});

for (const name of ["mae", "amaes"]) {
  Deno.test({
    name: `emulated card: a step of ${name} on views made with it, as on those made ahead on the CPU (5e-3)`,
    ignore,
    async fn() {
      const losses: number[] = [];
      for (const gpu of [false, true]) {
        native().vx_device_use(gpu);
        const config = tinyRun(method(name), tiny, { precision: "bf16" });
        const { patch, batch, seed } = config;
        const { views, reversal } = method(name);
        const loader = new Loader({ store, patch: [...patch], batch, seed, views, reversal, later: gpu });
        using trainer = new Trainer(tiny, method(name), config);
        const data = await loader.next();
        deviceReport();
        losses.push((await trainer.step(0, data))!.loss);
        await loader.close();
        if (gpu) assertEquals(deviceReport().on_host, {});
      }
      assert(Math.abs(losses[1] / losses[0] - 1) < 5e-3, `${losses}`);
      await wait();
      assertEquals(memory().bytes, 0);
    },
  });
}

Deno.test({
  name: "emulated card: training crops of two channels, made there as on the CPU (5e-5)",
  ignore,
  async fn() {
    const shape: Triple = [26, 30, 24];
    const [image, patch] = [blobs([26, 30, 48]), [12, 16, 10] as Triple];
    const source = { case: { image, shape }, sites: [] };
    const made = async (gpu: boolean) => {
      native().vx_device_use(gpu);
      const out = {
        views: new Views(patch, { channels: 2 }),
        labels: new Uint8Array(),
        targets: new Float32Array(),
      };
      for (let i = 0; i < 12; i++) await crop(source, i, 12, out, new Rng(i));
      deviceReport();
      return await scope(async () => {
        const images = out.views.tensor({ grid: Grid.dense(12), side: patch });
        out.views.send();
        await wait();
        out.views[Symbol.dispose]();
        return images.read();
      });
    };
    const [want, got] = [await made(false), await made(true)];
    assertEquals(deviceReport().on_host, {});
    assert(off(got, want) < 5e-5, `${off(got, want)}`);
    await wait();
    assertEquals(memory().bytes, 0);
  },
});
