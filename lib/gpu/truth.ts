/** Training steps of tiny networks on the GPU beside the same steps on the CPU: losses of both. */
import { primus } from "../arch/primus.ts";
import { resenc } from "../arch/resenc.ts";
import { deviceReport } from "../device.ts";
import { methods, runsOn } from "../methods/registry.ts";
import { native } from "../native/library.ts";
import type { Architecture } from "../nn/network.ts";
import type { Begin } from "./apart.ts";
import { step } from "./speed.ts";

/** Losses of one method and network; `error`: largest difference, relative. `on_host`: ops with no kernel. */
export interface TruthRow {
  method: string;
  arch: string;
  steps: number;
  error: number | string;
  tolerance: number;
  ok: boolean;
  on_host: Record<string, number>;
}

/** bf16 on both sides, sums in another order; contrastive projectors normalise columns of few rows. */
const TOLERANCE = { 1: 0.01, 2: 0.02 } as const;

/** Every method of the registry (or those of `names`) on both kinds of networks, as far as they fit. */
export async function* truth(begin: Begin, steps: number, names?: string[]): AsyncGenerator<TruthRow> {
  const networks: Architecture[] = [
    resenc("tiny resenc", [4, 8, 8], [1, 1, 1], 16),
    { ...primus("tiny primus", 96, 2, 2), headWidth: 16 },
  ];
  for (const chosen of methods.filter((m) => !m.first && names?.includes(m.name) !== false)) {
    for (const arch of networks.filter((arch) => runsOn(chosen, arch))) {
      // After one step of two views the batch norms of four rows have made much of little.
      const count = chosen.views === 2 ? 1 : steps;
      const tolerance = TOLERANCE[chosen.views];
      if (!begin(`${chosen.name}, ${arch.name}`)) continue;
      const about = { method: chosen.name, arch: arch.name, steps: count, tolerance };
      try {
        native().vx_device_use(false);
        const want = (await step(arch, chosen.name, 16, 2, count, 0)).losses;
        native().vx_device_use(true);
        deviceReport();
        const got = await step(arch, chosen.name, 16, 2, count, 0);
        const error = Math.max(...want.map((loss, i) => Math.abs(got.losses[i] - loss) / Math.abs(loss)));
        yield { ...about, error, ok: error <= tolerance, on_host: got.on_host };
      } catch (failure) {
        native().vx_device_use(true);
        yield { ...about, error: (failure as Error).message, ok: false, on_host: {} };
      }
    }
  }
}
