/** Runs that start from other runs: two stages in one command, refusals of weights that do not fit. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { parse } from "../../lib/config.ts";
import { decode } from "../../lib/data/safetensors.ts";
import { Loader } from "../../lib/data/loader.ts";
import { StoreWriter } from "../../lib/data/store.ts";
import { drawPair } from "../../lib/data/views.ts";
import { UserError } from "../../lib/errors.ts";
import { memory } from "../../lib/tensor.ts";
import { plan } from "../../lib/train/plan.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { pretrain, pretrainStages } from "../../lib/train/run.ts";
import { command } from "../../scripts/pretrain.ts";
import { leakFree } from "../ops/wave.ts";

async function weights(run: string) {
  const file = join(run, "checkpoint", "weights.safetensors");
  return decode(await Deno.readFile(file), file).tensors;
}

/** A store with one volume of 40^3 in `folder`. */
async function oneVolume(folder: string): Promise<string> {
  const path = join(folder, "store");
  const writer = await StoreWriter.open(path);
  const affine = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
  const bits = Uint16Array.from({ length: 64000 }, (_, i) => (i * 7 + (i >> 5) * 977) % 15000);
  const line = { id: "one", source: "one.nii.gz", status: "stored" as const, reason: "", affine };
  writer.put({ ...line, shape: [40, 40, 40], array: StoreWriter.arrayOf("one") }, bits);
  return path;
}

Deno.test(
  "compat nnssl-teacher-restart: a run that resumes loses its teacher; without it no step differs, D13",
  leakFree(async () => {
    const folder = await Deno.makeTempDir();
    const store = await oneVolume(folder);
    const step2 = async (compat: string[], cut: boolean) => {
      const args = [store, "--arch", "resenc-s", "--patch", "32", "--method", "cva", "--steps", "2"];
      const planned = await plan(parse(command, [...args, ...compat.flatMap((c) => ["--compat", c])]));
      // Momentum 0.5: one step away the teacher differs from the student visibly.
      planned.config.options.momentum = 0.5;
      const volumes = [{ id: "one", shape: [40, 40, 40] as [number, number, number] }];
      const pairs = async function* (count: number) {
        for (let index = 0; index < count; index++) yield await drawPair(0, index, volumes, [32, 32, 32]);
      };
      const path = join(folder, `run${compat.length}${cut}`);
      if (cut) {
        // A pipe that ends after one step leaves a checkpoint to resume from.
        await assertRejects(
          () => pretrain({ ...planned, pairs: pairs(2) }, path, { resume: false }),
          UserError,
        );
      }
      return (await pretrain({ ...planned, pairs: pairs(4) }, path, { resume: cut })).loss;
    };
    const whole = await step2([], false);
    assertEquals(await step2([], true), whole);
    assertNotEquals(await step2(["nnssl-teacher-restart"], true), whole);
    await Deno.remove(folder, { recursive: true });
  }),
);

Deno.test(
  "two-stage: one command gives the bits of its two; stage 2 starts its voxel head fresh; other weights are refused",
  leakFree(async () => {
    const folder = await Deno.makeTempDir();
    const at = (name: string) => join(folder, name);
    const store = await oneVolume(folder);
    const planned = (...args: string[]) =>
      plan(parse(command, [store, "--arch", "resenc-s", "--patch", "32", "--seed", "7", ...args]));
    const fresh = { resume: false };

    const whole = await planned(
      "--method",
      "two-stage",
      "--steps",
      "1",
      "--option",
      "stage-1=2",
      "--option",
      "align=none",
    );
    await pretrainStages({ ...whole, first: whole.first! }, at("whole"), fresh);
    await pretrain(await planned("--steps", "2", "--option", "loss=huber"), at("one"), fresh);
    assertEquals(await weights(at("whole/stage-1")), await weights(at("one")));
    const second = await planned("--method", "contrastive-mae", "--steps", "1", "--from", at("one"));
    await pretrain(second, at("two"), { ...fresh, from: at("one") });
    const [got, want] = [await weights(at("whole")), await weights(at("two"))];
    assertEquals([...got.keys()], [...want.keys()]);
    for (const [name, { data }] of want) assertEquals(got.get(name)!.data, data, name);
    const again = await pretrainStages({ ...whole, first: whole.first! }, at("whole"), { resume: true });
    assertEquals(again.steps, 1);

    const head = "decoder.seg_layers.3.weight";
    assertNotEquals((await weights(at("two"))).get(head)!.data, (await weights(at("one"))).get(head)!.data);
    const other = await plan(parse(command, [store, "--arch", "unet-b", "--patch", "32"]));
    await assertRejects(
      () => pretrain(other, at("three"), { ...fresh, from: at("one") }),
      UserError,
      "holds weights of resenc-s",
    );
    assertEquals((await planned("--from", at("one"))).arch.name, "resenc-s");
    await Deno.remove(folder, { recursive: true });
  }),
);

Deno.test(
  "plan: what a step will need is known before the first one, within a quarter",
  leakFree(async () => {
    const folder = await Deno.makeTempDir();
    const store = await oneVolume(folder);
    for (const method of ["mae", "s3d", "amaes", "cva"]) {
      const args = [store, "--arch", "resenc-s", "--patch", "32", "--method", method, "--steps", "2"];
      const { arch, method: chosen, config, store: source } = await plan(parse(command, args));
      using trainer = new Trainer(arch, chosen, config);
      const planned = await trainer.plan();
      const { views, reversal } = chosen;
      const loader = new Loader({ store: source, patch: config.patch, batch: 2, seed: 0, views, reversal });
      await trainer.step(0, await loader.next());
      await loader.close();
      const { peakBytes } = memory();
      assert(planned > 0.75 * peakBytes && planned < 1.25 * peakBytes, `${method}: ${planned} ${peakBytes}`);
    }
    await Deno.remove(folder, { recursive: true });
  }),
);
