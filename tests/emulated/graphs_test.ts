/** Graphs and the library of products on the emulated card: the same steps, the same bits, the same products. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { Loader } from "../../lib/data/loader.ts";
import { deviceReport } from "../../lib/device.ts";
import { noise } from "../../lib/gpu/parity.ts";
import { method } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { linear } from "../../lib/ops/linear.ts";
import { memory, scope, Tensor, wait } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { batch } from "../parity/batch.ts";
import { families, tiny, tinyRun } from "../parity/tiny.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();
const primus = families().find((arch) => arch.kind === "token")!;

for (const [name, arch] of [["mae", primus], ["s3d", tiny]] as const) {
  Deno.test({
    name: `emulated card: steps of ${name} on ${arch.name} as graphs have the bits of launches`,
    ignore,
    async fn() {
      native().vx_device_use(true);
      const chosen = method(name);
      const config = tinyRun(chosen, arch, { precision: "bf16", steps: 25_000 }); // one learning rate
      const seen: number[][] = [];
      const graphs: number[] = [];
      for (const on of [false, true]) {
        native().vx_device_graphs(on);
        using trainer = new Trainer(arch, chosen, config);
        const losses: number[] = [];
        for (let step = 0; step < 3; step++) {
          deviceReport();
          losses.push(
            (await trainer.step(step, batch(step, config.patch[0], config.batch, chosen.views)))!.loss,
          );
          if (on) graphs.push(deviceReport().graphs);
        }
        seen.push(losses);
      }
      native().vx_device_graphs(false);
      assertEquals(seen[1], seen[0]);
      if (arch === primus) assert(graphs[2] > 0, `graphs: ${graphs}`);
      await wait();
      assertEquals(memory().bytes, 0);
    },
  });
}

/** Five steps of `mae` on tokens whose batches come from a loader; `early`: the next one's parts are sent ahead. */
async function loaded(early: boolean, graphs = false) {
  native().vx_device_use(true);
  native().vx_device_graphs(graphs);
  const chosen = method("mae");
  const config = tinyRun(chosen, primus, { precision: "bf16" });
  const volume = { id: "noise", shape: [40, 36, 44] as [number, number, number] };
  const values = noise(40 * 36 * 44, 5);
  const store = { volumes: [volume], get: () => volume, read: () => Promise.resolve(values) };
  const source = new Loader({ store, patch: config.patch, batch: 2, seed: 0, views: 1, later: true });
  const [losses, waits, sent]: number[][] = [[], [], []];
  try {
    using trainer = new Trainer(primus, chosen, config);
    for (let step = 0; step < 5; step++) {
      const data = await source.next();
      deviceReport();
      losses.push((await trainer.step(step, data, early ? () => source.ahead() : undefined))!.loss);
      const report = deviceReport();
      waits.push(report.waits);
      sent.push(report.ahead);
    }
  } finally {
    await source.close();
    if (graphs) native().vx_device_graphs(false);
  }
  await wait();
  assertEquals(memory().bytes, 0);
  return { losses, waits, sent };
}

Deno.test({
  name:
    "emulated card: parts of views go to the card on a stream of their own, ahead of their step: no bit changes, waits stay one",
  ignore,
  async fn() {
    const plain = await loaded(false);
    assertEquals(plain.sent, [0, 0, 0, 0, 0]);
    for (const graphs of [false, true]) {
      const ahead = await loaded(true, graphs);
      assertEquals(ahead.losses, plain.losses);
      assertEquals(ahead.waits, [1, 1, 1, 1, 1]);
      // Lanes take turns: every batch of two that is cut out by then goes ahead.
      const { sent } = ahead;
      assert(sent.every((n) => n % 2 === 0) && sent.filter((n) => n === 2).length >= 3, `${sent}`);
    }
  },
});

Deno.test({
  name: "emulated card: a forgotten wait for the stream of uploads shows",
  ignore,
  async fn() {
    const plain = await loaded(false);
    native().vx_pool_empty();
    native().vx_device_pretend(2 ** 34, 0, 12040, 0, 1); // copies arrive when they are waited for, and nobody waits
    try {
      const seen = await loaded(true).then(({ losses }) => losses, (error: Error) => error.message);
      assertNotEquals(seen, plain.losses);
    } finally {
      await wait().catch(() => {});
      native().vx_device_pretend(2 ** 34, 0, 12040, 0, 0);
    }
  },
});

Deno.test({
  name: "emulated card: a linear layer by the library of products is that of our kernel, with its gradients",
  ignore,
  async fn() {
    native().vx_device_use(true);
    assertEquals(native().vx_device_products(true), 1);
    const both: Float32Array[][] = [];
    for (const on of [false, true]) {
      native().vx_device_products(on);
      both.push(
        await scope(async () => {
          const x = Tensor.from(noise(70 * 40, 1), 40, undefined, "bf16");
          const [w, b] = [Tensor.from(noise(24 * 40, 2), 40), Tensor.from(noise(24, 3), 24)];
          const { tape, result } = Tape.record([x, w, b], () => linear(x, w, b));
          const gradients = tape.backward(
            result,
            undefined,
            Tensor.from(noise(70 * 24, 4), 24, undefined, "bf16"),
          );
          await wait();
          return [result, ...[x, w, b].map((t) => gradients.get(t)!)].map((t) => t.read());
        }),
      );
    }
    native().vx_device_products(false);
    both[0].forEach((own, t) => {
      const size = own.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      own.forEach((v, i) => assert(Math.abs(v - both[1][t][i]) <= 0.01 * size, `tensor ${t}, value ${i}`));
    });
  },
});
