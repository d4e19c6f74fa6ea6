/** The convolutions on wgmma through their launches, on the emulated card: layouts, each op, whole steps. */
import { assert, assertEquals } from "@std/assert";
import { resenc } from "../../lib/arch/resenc.ts";
import { deviceReport } from "../../lib/device.ts";
import { fragments } from "../../lib/gpu/fragments.ts";
import { parity } from "../../lib/gpu/parity.ts";
import { method } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { batch } from "../parity/batch.ts";
import { tinyRun } from "../parity/tiny.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();

Deno.test({
  name: "emulated card: warp matrices lie as gpu-check expects, turned factors of wgmma among them",
  ignore,
  async fn() {
    native().vx_device_use(true);
    const rows = await Array.fromAsync(fragments(() => true));
    assertEquals(rows.filter((row) => !row.ok), []);
    assertEquals(rows.filter(({ layout }) => layout.includes("turned")).length, 3);
  },
});

Deno.test({
  name: "emulated card: convolutions on wgmma and their gradients are those of the CPU",
  ignore,
  async fn() {
    const rows = await Array.fromAsync(parity((name) => name.includes("on wgmma")));
    assertEquals(rows.length, 5);
    assertEquals(rows.filter((row) => !row.ok || Object.keys(row.on_host).length), []);
    native().vx_conv3d_stacked(false);
  },
});

for (const name of ["mae", "s3d"]) {
  Deno.test({
    name: `emulated card: two steps of ${name} on wgmma as on the CPU (2e-3)`,
    ignore,
    async fn() {
      const arch = resenc("two levels", [32, 64], [1, 1], 16);
      const chosen = method(name);
      const config = tinyRun(chosen, arch, { precision: "bf16", batch: 1 });
      const seen: number[][] = [];
      for (const gpu of [false, true]) {
        native().vx_device_use(gpu);
        if (gpu) assertEquals(native().vx_conv3d_stacked(true), 1);
        using trainer = new Trainer(arch, chosen, config);
        const losses: number[] = [];
        for (let step = 0; step < 2; step++) {
          losses.push((await trainer.step(step, batch(step, config.patch[0], 1, 1)))!.loss);
        }
        seen.push(losses);
      }
      native().vx_conv3d_stacked(false);
      assertEquals(deviceReport().on_host, {});
      seen[0].forEach((want, i) => {
        const error = Math.abs(seen[1][i] - want) / Math.abs(want);
        assert(error < 2e-3, `step ${i}: ${seen[1][i]} on the card, ${want} on the CPU`);
      });
    },
  });
}
