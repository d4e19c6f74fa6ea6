/** Linear layers on the GPU in use: our own kernel and, where it is found, cuBLASLt. */
import { native } from "../native/library.ts";
import { scope, Tensor } from "../tensor.ts";
import type { Begin } from "./apart.ts";
import { noise } from "./parity.ts";
import { peakOf, timed } from "./speed.ts";

/** A linear layer: rows, channels in and out. */
export type Shape = readonly [rows: number, channels: number, outputs: number];

/** Layers of primus-m at 160^3 with two images, a quarter of the tokens: attention, SwiGLU in and out; and a projector of cva. */
export const LAYERS: readonly Shape[] = [[4000, 864, 864], [4000, 864, 2304], [4000, 2304, 864], [
  16384,
  1088,
  2048,
]];

/** Time of one product. `way`: our kernel or the library. */
export interface ProductRow {
  kernel: string;
  way: "own" | "cuBLASLt";
  rows: number;
  channels: number;
  outputs: number;
  milliseconds: number;
  tflops: number;
  share_of_peak: number | null;
}

/** Times forward and both gradients of each layer, in bf16: by our kernel, then by the library where it is found. */
export async function* products(
  begin: Begin,
  layers: readonly Shape[],
  rounds: number,
  card: string,
): AsyncGenerator<ProductRow> {
  const n = native();
  const peak = peakOf(card);
  const cases = (["own", "cuBLASLt"] as const).flatMap((way) => layers.map((layer) => ({ way, layer })));
  for (const { way, layer: [rows, channels, outputs] } of cases) {
    if (!begin(`${rows} x ${channels} x ${outputs}, ${way}`)) continue;
    if (way === "cuBLASLt" && !n.vx_device_products(true)) continue;
    yield* await scope(async () => {
      const x = Tensor.from(noise(rows * channels, 1), channels, undefined, "bf16");
      const dy = Tensor.from(noise(rows * outputs, 2), outputs, undefined, "bf16");
      const w = Tensor.from(noise(channels * outputs, 3), channels);
      const calls: Record<string, () => number> = {
        forward: () => n.vx_linear(x.handle, w.handle, 0, rows, channels, outputs),
        input: () => n.vx_linear_grad_input(dy.handle, w.handle, rows, channels, outputs),
        weight: () => n.vx_linear_grad_weight(x.handle, dy.handle, rows, channels, outputs),
      };
      const list: ProductRow[] = [];
      for (const [kernel, call] of Object.entries(calls)) {
        const milliseconds = await timed(call, rounds);
        const flops = 2 * rows * channels * outputs / (milliseconds / 1000);
        const share = peak ? flops / peak : null;
        list.push({
          ...{ kernel: `linear, ${kernel}`, way, rows, channels, outputs, milliseconds },
          tflops: flops / 1e12,
          share_of_peak: share,
        });
      }
      return list;
    });
    n.vx_device_products(false);
  }
}
