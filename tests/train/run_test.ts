/** Runs that start from other runs: two stages in one command, refusals of weights that do not fit. */
import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { parse } from "../../lib/config.ts";
import { decode } from "../../lib/data/safetensors.ts";
import { StoreWriter } from "../../lib/data/store.ts";
import { UserError } from "../../lib/errors.ts";
import { plan } from "../../lib/train/plan.ts";
import { pretrain, pretrainStages } from "../../lib/train/run.ts";
import { command } from "../../scripts/pretrain.ts";
import { leakFree } from "../ops/wave.ts";

async function weights(run: string) {
  const file = join(run, "checkpoint", "weights.safetensors");
  return decode(await Deno.readFile(file), file).tensors;
}

Deno.test(
  "two-stage: one command gives the bits of its two; stage 2 starts its voxel head fresh; other weights are refused",
  leakFree(async () => {
    const folder = await Deno.makeTempDir();
    const at = (name: string) => join(folder, name);
    const writer = await StoreWriter.open(at("store"));
    const affine = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
    const bits = Uint16Array.from({ length: 64000 }, (_, i) => (i * 7 + (i >> 5) * 977) % 15000);
    const line = { id: "one", source: "one.nii.gz", status: "stored" as const, reason: "", affine };
    writer.put({ ...line, shape: [40, 40, 40], array: StoreWriter.arrayOf("one") }, bits);
    const planned = (...args: string[]) =>
      plan(parse(command, [at("store"), "--arch", "resenc-s", "--patch", "32", "--seed", "7", ...args]));
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
    const other = await plan(parse(command, [at("store"), "--arch", "unet-b", "--patch", "32"]));
    await assertRejects(
      () => pretrain(other, at("three"), { ...fresh, from: at("one") }),
      UserError,
      "holds weights of resenc-s",
    );
    assertEquals((await planned("--from", at("one"))).arch.name, "resenc-s");
    await Deno.remove(folder, { recursive: true });
  }),
);
