/** What goes wrong with a card, on the emulated one: too old a driver, too little room, a card lost in the middle of a run. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { chooseDevice, deviceReport } from "../../lib/device.ts";
import type { Batch } from "../../lib/data/loader.ts";
import { UserError } from "../../lib/errors.ts";
import { method } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { makeRoom } from "../../lib/gpu/room.ts";
import { keepWays, useWays, WAYS } from "../../lib/gpu/ways.ts";
import { memory, scope, volume, wait } from "../../lib/tensor.ts";
import { blankStore } from "../../lib/train/first_store.ts";
import { train, Trainer } from "../../lib/train/pretrain.ts";
import { estimateRun } from "../../lib/train/run.ts";
import { RunFolder } from "../../lib/train/run_folder.ts";
import { batch } from "../parity/batch.ts";
import { families, tiny, tinyRun } from "../parity/tiny.ts";
import { crops, tuningOf } from "../train/tuning.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();
const GIB = 2 ** 30;
const mae = method("mae");
const primus = families().find((arch) => arch.kind === "token")!;

/** The emulated card is another until the end of `body`, and in use. */
async function onCard(
  { bytes = 16 * GIB, taken = 0, driver = 12040, launches = 0, code = 0 },
  body: () => Promise<void>,
): Promise<void> {
  native().vx_device_pretend(bytes, taken, driver, launches, code);
  try {
    await body();
  } finally {
    native().vx_device_pretend(16 * GIB, 0, 12040, 0, 0);
  }
}

/** What `--device cuda --estimate` says where it fails. */
async function refusal(changes: Parameters<typeof tinyRun>[2]): Promise<string> {
  chooseDevice("cuda");
  const config = tinyRun(mae, tiny, { precision: "bf16", ...changes });
  const store = blankStore(config.patch[0]);
  return (await assertRejects(() => estimateRun({ arch: tiny, method: mae, config, store }), UserError))
    .message;
}

Deno.test({
  name: "emulated card: an old driver is named for cuda, and is no error for auto",
  ignore,
  fn: () =>
    onCard({ driver: 11080 }, () => {
      const error = assertThrows(() => chooseDevice("cuda"), UserError);
      assert(error.message.includes("the driver of emulated card is made for CUDA 11.8, 12.0 is needed"));
      assertEquals(chooseDevice("auto"), "cpu");
      return Promise.resolve();
    }),
});

Deno.test({
  name: "emulated card: before the first step, what a run needs is held or refused with what fits",
  ignore,
  async fn() {
    const work = 64 * 2 ** 20; // what operations need beside tensors
    let need = 0;
    await onCard({}, async () => {
      chooseDevice("cuda");
      using trainer = new Trainer(tiny, mae, tinyRun(mae, tiny, { precision: "bf16" }));
      need = await trainer.plan();
      await trainer.step(0, batch(0, 16, 2, 1));
      const { peak } = deviceReport();
      assert(peak < need + work && peak > 0.8 * need, `planned ${need}, used ${peak}`);
    });
    await onCard({ bytes: work + 0.75 * need }, async () => {
      const message = await refusal({});
      assert(/^a step needs \S+ GiB, emulated card has \S+ GiB free of/.test(message), message);
      assert(message.endsWith("use --batch 1 or --recompute") || message.endsWith("use --batch 1"), message);
    });
    await onCard({ bytes: 2 * GIB, taken: 2 * GIB - work - 0.75 * need }, async () => {
      const message = await refusal({});
      assert(message.includes("free of 2.00 GiB; other programs hold 1.94 GiB: use --batch 1"), message);
    });
    await wait();
    assertEquals(memory().bytes, 0);
  },
});

Deno.test({
  name:
    "emulated card: before the first step of a fine-tuning, what it needs is held or refused with what fits",
  ignore,
  async fn() {
    const work = 64 * 2 ** 20;
    const patch: [number, number, number] = [16, 16, 32];
    let need = { bytes: 0, fixed: 0 };
    const room = (batch: number) => () => {
      chooseDevice("cuda");
      makeRoom({ ...need, batch, least: 1 }, "lower --patch");
      return Promise.resolve();
    };
    await onCard({}, async () => {
      chooseDevice("cuda");
      using tuning = tuningOf({ task: "classification", labels: [0, 1], patch });
      need = await tuning.plan();
      makeRoom({ ...need, batch: 2, least: 1 }, "lower --patch");
      deviceReport();
      const taken = await crops(tuning.info);
      await tuning.step(0, taken);
      const model = tuning.model;
      await scope(async () => {
        model.output(new Float32Array(volume(patch)));
        await wait();
      });
      taken.views[Symbol.dispose]();
      const { peak, allocations, on_host } = deviceReport();
      assert(peak < need.bytes + work && peak > 0.8 * need.bytes, `planned ${need.bytes}, used ${peak}`);
      assertEquals([allocations, on_host], [0, {}]);
    });
    const one = need.fixed + (need.bytes - need.fixed) / 2;
    await onCard({ bytes: work + (one + need.bytes) / 2 }, async () => {
      assert((await assertRejects(async () => await room(2)(), UserError)).message.endsWith("use --batch 1"));
    });
    await onCard({ bytes: work + need.fixed }, async () => {
      const { message } = await assertRejects(async () => await room(2)(), UserError);
      assert(message.endsWith("use a smaller --patch"), message);
    });
  },
});

/** Four steps in the folder `path`, as far as they go; what `next` throws ends them. */
async function fourSteps(path: string, resume: boolean, next: (step: number) => Promise<Batch>) {
  chooseDevice("cuda");
  const config = tinyRun(mae, primus, { precision: "bf16", steps: 4 });
  using trainer = new Trainer(primus, mae, config);
  const folder = await RunFolder.open(path, config, resume);
  try {
    let step = folder.step;
    if (step) await folder.load(trainer.parameters, trainer.state());
    await train(trainer, folder, () => next(step++));
    return folder.metrics.map((metric) => metric.loss);
  } finally {
    folder.close();
  }
}

Deno.test({
  name:
    "emulated card: an error in the middle of a run is one sentence, and the run goes on from its checkpoint",
  ignore,
  async fn() {
    const folder = await Deno.makeTempDir();
    const data = (step: number) => Promise.resolve(batch(step, 16, 2, 1));
    try {
      let whole: number[] = [];
      let launches = 0; // of three steps
      await onCard({}, async () => {
        whole = await fourSteps(`${folder}/whole`, false, (step) => {
          if (step < 3) launches += deviceReport().launches;
          return data(step);
        });
      });
      await onCard({}, async () => {
        const ends = (step: number) => step < 2 ? data(step) : Promise.reject(new UserError("no more data"));
        await assertRejects(() => fourSteps(`${folder}/run`, false, ends), UserError, "no more data");
      });
      for (
        const [code, words] of [
          [2, "the memory of the GPU is used up"],
          [719, "a kernel failed"],
          [46, "in use by another program"],
          [999, "the CUDA driver fails"],
        ] as const
      ) {
        // 2, 46, 999: at once; 719 in the second step after the checkpoint.
        await onCard({ launches: code === 719 ? Math.floor(launches / 2) : 40, code }, async () => {
          const error = await assertRejects(() => fourSteps(`${folder}/run`, true, data), UserError);
          assert(error.message.startsWith("step "), error.message);
          assert(error.message.includes(words), error.message);
          assert(
            error.message.endsWith("; the checkpoint of step 2 is whole, go on with --resume"),
            error.message,
          );
          assert(error.message.length < 300 && !error.message.includes("\n"));
        });
      }
      await onCard({}, async () => {
        assertEquals(await fourSteps(`${folder}/run`, true, data), whole);
      });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
    await wait();
    assertEquals(memory().bytes, 0);
  },
});

Deno.test({
  name:
    "emulated card: what a check has shown is turned on when the card is chosen, until the kernels change",
  ignore,
  async fn() {
    const folder = await Deno.makeTempDir();
    const { card } = (chooseDevice("cuda"), deviceReport());
    const judged = ["fragments", "parity", "truth"].map((stage) => ({ stage, card, ok: true }));
    const step = (variant: string, seconds: number) => ({
      ...{ stage: "step", card, kind: "cnn", method: "mae", arch: "resenc-l", patch: 128, batch: 2 },
      ...{ variant, seconds, losses: [1] },
    });
    keepWays(folder, card, [...judged, step("plain", 2), step("wgmma", 1)]);
    try {
      assertEquals(useWays(folder, card)?.ways, ["wgmma"]);
      assertEquals(chooseDevice("cuda", folder), "cuda");
    } finally {
      for (const { turn } of WAYS) turn(false);
      await Deno.remove(folder, { recursive: true });
    }
  },
});
