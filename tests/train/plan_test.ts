/** What a command line becomes: rates and lengths of the papers, pairs that are recorded; steps that cannot go on. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { parse } from "../../lib/config.ts";
import { drawPairs } from "../../lib/data/pairs.ts";
import { Store, StoreWriter } from "../../lib/data/store.ts";
import { UserError } from "../../lib/errors.ts";
import { mae } from "../../lib/methods/mae.ts";
import type { Method } from "../../lib/methods/method.ts";
import { scale } from "../../lib/ops/elementwise.ts";
import { plan } from "../../lib/train/plan.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { RunFolder } from "../../lib/train/run_folder.ts";
import { command } from "../../scripts/pretrain.ts";
import { leakFree } from "../ops/wave.ts";

/** A store with one volume of 64^3, and plans on it. */
async function place() {
  const folder = await Deno.makeTempDir();
  const path = join(folder, "store");
  const writer = await StoreWriter.open(path);
  const affine = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
  const line = { id: "one", source: "one.nii.gz", status: "stored" as const, reason: "", affine };
  const bits = Uint16Array.from({ length: 64 ** 3 }, (_, i) => (i * 7 + (i >> 5) * 977) % 15000);
  writer.put({ ...line, shape: [64, 64, 64], array: StoreWriter.arrayOf("one") }, bits);
  const planned = (...args: string[]) => plan(parse(command, [path, "--patch", "64", ...args]));
  return { folder, path, planned };
}

Deno.test("plan: a method's rate is of the CNN preset only; its length follows the network", async () => {
  const { folder, planned } = await place();
  const of = async (method: string, arch: string) => {
    const { config, first } = await planned("--method", method, "--arch", arch);
    return [config.lr, config.steps, ...(first ? [first.config.lr, first.config.steps] : [])];
  };
  assertEquals(await of("ae", "resenc-s"), [5e-3, 250_000]);
  assertEquals(await of("ae", "swinunetr"), [3e-4, 250_000]);
  assertEquals(await of("ae", "primus-s"), [3e-4, 250_000]);
  assertEquals(await of("cva", "resenc-s"), [1e-2, 62_500]);
  assertEquals(await of("gram", "primus-s"), [3e-4, 37_500]);
  assertEquals(await of("two-stage", "resenc-s"), [1e-2, 62_500, 1e-2, 250_000]);
  assertEquals((await planned("--method", "cva", "--steps", "9")).config.steps, 9);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("plan: pairs of another seed are recorded; --resume without them is refused", async () => {
  const { folder, path, planned } = await place();
  const file = join(folder, "pairs.jsonl");
  const write = async (seed: number) => {
    const store = await Store.open(path);
    const lines: string[] = [];
    for await (const pair of drawPairs(store, [64, 64, 64], seed, { to: 4 })) {
      lines.push(JSON.stringify(pair) + "\n");
    }
    await Deno.writeTextFile(file, lines.join(""));
  };
  const args = ["--method", "two-stage", "--arch", "resenc-s", "--steps", "2", "--seed", "5"];
  await write(5);
  const same = await planned(...args, "--pairs", file);
  assertEquals(same.config, (await planned(...args)).config);
  await write(6);
  const { config, first } = await planned(...args, "--pairs", file);
  assertEquals([config.pairs, first!.config.pairs], [6, undefined]);
  const run = join(folder, "run");
  (await RunFolder.open(run, config, false)).close();
  await assertRejects(
    () => RunFolder.open(run, same.config, true),
    UserError,
    "pairs is 6 there and not given here",
  );
  await Deno.remove(folder, { recursive: true });
});

Deno.test(
  "step: a gradient that is not finite ends the run, though the loss is",
  leakFree(async () => {
    const { folder, planned } = await place();
    const { arch, config } = await planned("--arch", "resenc-s", "--steps", "2");
    const steep: Method = {
      ...mae as Method,
      bind(context) {
        const learner = mae.bind(context as Parameters<typeof mae.bind>[0]);
        return {
          ...learner,
          loss: (input) => {
            const found = learner.loss(input);
            // Forward 1e-30, 1, 1e30 times the loss; backward 1e30 and then too much.
            return { ...found, loss: scale(scale(scale(found.loss, 1e-30), 1e30), 1e30) };
          },
        };
      },
    };
    const images = Float32Array.from({ length: 2 * 64 ** 3 }, (_, i) => Math.sin(i * i));
    const batch = { images, overlap: new Float32Array(), ids: ["one", "one"] };
    using trainer = new Trainer(arch, steep, config);
    const before = trainer.parameters.values();
    const error = await assertRejects(
      () => trainer.step(0, batch),
      UserError,
      "the gradient norm is not finite at step 1",
    );
    assert(error.message.includes(`--lr ${config.lr}`));
    assertEquals(trainer.parameters.values(), before);
    await Deno.remove(folder, { recursive: true });
  }),
);
