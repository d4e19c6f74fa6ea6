/** Whole training steps through the launches of the GPU path, on the emulated card, beside the same steps on the CPU. */
import { assert, assertEquals } from "@std/assert";
import { deviceReport } from "../../lib/device.ts";
import { method } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { memory, wait } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { batch } from "../parity/batch.ts";
import { tiny, tinyRun } from "../parity/tiny.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();

/** Losses of `steps` steps on one device, and what the card did in the last of them. */
async function losses(name: string, steps: number, gpu: boolean) {
  native().vx_device_use(gpu);
  const chosen = method(name);
  using trainer = new Trainer(tiny, chosen, tinyRun(chosen, tiny, { precision: "bf16" }));
  const seen: number[] = [];
  let report = deviceReport();
  for (let step = 0; step < steps; step++) {
    deviceReport();
    seen.push((await trainer.step(step, batch(step, 16, 2, chosen.views)))!.loss);
    report = deviceReport();
  }
  return { seen, report };
}

// Both round activations to bf16 at the same places; sums run in another order, so values on a rounding edge differ.
for (const [name, steps, tolerance] of [["mae", 10, 2e-3], ["s3d", 10, 2e-3]] as const) {
  Deno.test({
    name: `emulated card: ${steps} steps of ${name} as on the CPU (${tolerance}), every op on the card`,
    ignore,
    async fn() {
      const want = await losses(name, steps, false);
      const got = await losses(name, steps, true);
      got.seen.forEach((loss, i) => {
        const error = Math.abs(loss - want.seen[i]) / Math.abs(want.seen[i]);
        assert(error < tolerance, `step ${i}: ${loss} on the card, ${want.seen[i]} on the CPU`);
      });
      assertEquals(got.report.on_host, {});
      assert(got.report.downloads <= 2, "the loss and the norm are all that comes back");
      await wait();
      assertEquals(memory().bytes, 0);
    },
  });
}
