/** Networks whose activations and their gradients are stored in bf16: half the memory and memory traffic. */
import { native } from "../native/library.ts";
import { cast } from "../ops/cast.ts";
import type { Architecture } from "./network.ts";

/**
 * How activations are stored, and how Winograd convolutions multiply them: `bf16` as bf16 where the processor can,
 * `bf16-exact` in f32, which rounds less and takes longer.
 */
export const precisions = ["f32", "bf16", "bf16-exact"] as const;
export type Precision = typeof precisions[number];

/** Makes convolutions of stored bf16 multiply in f32, or again by the rule. */
export function exactly(on: boolean): void {
  native().vx_conv3d_algorithm(on ? 4 : 0);
}

/**
 * `arch` with activations in `precision`: the input is rounded, the output comes back in f32. Parameters, their
 * gradients, statistics and losses stay f32, and so do sums inside ops.
 */
export function inPrecision(arch: Architecture, precision: Precision): Architecture {
  if (precision === "f32") return arch;
  return {
    ...arch,
    build(...args) {
      const network = arch.build(...args);
      return {
        ...network,
        encode: (x, ...rest) => network.encode(cast(x, "bf16"), ...rest),
        decode: (pyramid, ...rest) =>
          cast(network.decode(pyramid.map((level) => cast(level, "bf16")), ...rest), "f32"),
      };
    },
  };
}
