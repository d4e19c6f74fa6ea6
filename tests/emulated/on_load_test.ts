/** Norms that convolutions apply as they load, on the emulated card: the bits of norms that write, in no more memory. */
import { assert, assertEquals } from "@std/assert";
import { resenc } from "../../lib/arch/resenc.ts";
import { deviceReport } from "../../lib/device.ts";
import { method } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { instanceNorm } from "../../lib/ops/norm.ts";
import { noise } from "../../lib/gpu/parity.ts";
import { Grid, memory, scope, Tensor, wait } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { batch } from "../parity/batch.ts";
import { tinyRun } from "../parity/tiny.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();

for (const name of ["mae", "s3d"]) {
  Deno.test({
    name:
      `emulated card: steps of ${name} with norms on load have the bits of those without, in no more memory`,
    ignore,
    async fn() {
      native().vx_device_use(true);
      const arch = resenc("small resenc", [8, 16], [1, 1], 16);
      const chosen = method(name);
      const config = tinyRun(chosen, arch, { precision: "bf16", batch: 1 });
      const runs: { losses: number[]; peak: number; launches: number }[] = [];
      for (const on of [false, true]) {
        native().vx_norm_on_load(on);
        native().vx_pool_empty();
        native().vx_peak_reset();
        using trainer = new Trainer(arch, chosen, config);
        const losses: number[] = [];
        let report = deviceReport();
        for (let step = 0; step < 2; step++) {
          losses.push((await trainer.step(step, batch(step, config.patch[0], 1, 1)))!.loss);
          report = deviceReport();
        }
        assertEquals(report.on_host, {});
        runs.push({ losses, peak: report.peak, launches: report.launches });
      }
      native().vx_norm_on_load(false);
      const [written, loaded] = runs;
      assertEquals(loaded.losses, written.losses);
      assert(loaded.launches < written.launches, `launches: ${loaded.launches} of ${written.launches}`);
      // Not less: a norm that writes is dropped after its reader, so both peaks lie where no norm waits.
      assert(loaded.peak <= written.peak, `bytes: ${loaded.peak} of ${written.peak}`);
      await wait();
      assertEquals(memory().bytes, 0);
    },
  });
}

Deno.test({
  name: "emulated card: a norm that waits for its reader is written for one that is no convolution",
  ignore,
  async fn() {
    native().vx_device_use(true);
    const seen: Float32Array[] = [];
    for (const on of [false, true]) {
      native().vx_norm_on_load(on);
      seen.push(
        await scope(async () => {
          const layout = { grid: Grid.dense(2), side: [3, 4, 5] as const };
          const y = instanceNorm(Tensor.from(noise(120 * 8, 1), 8, layout, "bf16"), null, null, {
            slope: 0.1,
          });
          await wait();
          return y.read();
        }),
      );
    }
    native().vx_norm_on_load(false);
    assertEquals(seen[1], seen[0]);
    await wait(); // memory of the card is given back in the order of the work
    assertEquals(memory().bytes, 0);
  },
});
