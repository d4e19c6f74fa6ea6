/** Whole training steps through the launches of the GPU path, on the emulated card, beside the same steps on the CPU. */
import { assert, assertEquals } from "@std/assert";
import { deviceReport } from "../../lib/device.ts";
import type { Architecture } from "../../lib/nn/network.ts";
import { method } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { memory, wait } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { batch } from "../parity/batch.ts";
import { families, tiny, tinyRun } from "../parity/tiny.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();

/** Losses of `steps` steps on one device, and what the card did in the last of them. */
async function losses(name: string, arch: Architecture, steps: number, gpu: boolean) {
  native().vx_device_use(gpu);
  const chosen = method(name);
  const config = tinyRun(chosen, arch, { precision: "bf16" });
  using trainer = new Trainer(arch, chosen, config);
  const seen: number[] = [];
  let terms = 0;
  let report = deviceReport();
  for (let step = 0; step < steps; step++) {
    deviceReport();
    const data = batch(step, config.patch[0], config.batch, chosen.views);
    const { loss, ...rest } = (await trainer.step(step, data))!;
    seen.push(loss);
    terms = Object.keys(rest).length;
    report = deviceReport();
  }
  return { seen, report, terms };
}

const primus = families().find((arch) => arch.kind === "token")!;

// Both round activations to bf16 at the same places; sums run in another order, so values on a rounding edge differ. Of
// cva one step: its projectors normalise columns of four rows, and bf16 changes their gradients by half on either device.
const CASES: [method: string, arch: Architecture, steps: number, tolerance: number][] = [
  ["mae", tiny, 10, 2e-3],
  ["s3d", tiny, 10, 2e-3],
  ["cva", tiny, 1, 5e-3],
  ["mae", primus, 4, 5e-3],
];

for (const [name, arch, steps, tolerance] of CASES) {
  Deno.test({
    name:
      `emulated card: ${steps} steps of ${name} on ${arch.name} as on the CPU (${tolerance}), every op on the card`,
    ignore,
    async fn() {
      const want = await losses(name, arch, steps, false);
      const got = await losses(name, arch, steps, true);
      got.seen.forEach((loss, i) => {
        const error = Math.abs(loss - want.seen[i]) / Math.abs(want.seen[i]);
        assert(error < tolerance, `step ${i}: ${loss} on the card, ${want.seen[i]} on the CPU`);
      });
      assertEquals(got.report.on_host, {});
      assert(got.report.downloads <= got.terms + 2, "the losses and the norm are all that comes back");
      assertEquals(got.report.waits, 1, "the host waits once");
      if (steps > 1) {
        assertEquals(got.report.allocations, 0, "the driver is asked for memory in the first step alone");
      }
      await wait();
      assertEquals(memory().bytes, 0);
    },
  });
}
