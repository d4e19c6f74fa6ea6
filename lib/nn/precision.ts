/** Networks whose activations and their gradients are stored in bf16: half the memory and memory traffic. */
import { cast } from "../ops/cast.ts";
import type { Dtype } from "../tensor.ts";
import type { Architecture } from "./network.ts";

/**
 * `arch` with activations in `precision`: the input is rounded, the output comes back in f32. Parameters, their
 * gradients, statistics and losses stay f32, and so do sums inside ops.
 */
export function inPrecision(arch: Architecture, precision: Dtype): Architecture {
  if (precision === "f32") return arch;
  return {
    ...arch,
    build(...args) {
      const network = arch.build(...args);
      return {
        ...network,
        encode: (x, ...rest) => network.encode(cast(x, precision), ...rest),
        decode: (pyramid, ...rest) =>
          cast(network.decode(pyramid.map((level) => cast(level, precision)), ...rest), "f32"),
      };
    },
  };
}
