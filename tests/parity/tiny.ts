/** Networks and runs small enough to train in a test. */
import { resenc } from "../../lib/arch/resenc.ts";
import type { Method } from "../../lib/methods/method.ts";
import type { Architecture } from "../../lib/nn/network.ts";
import type { RunConfig } from "../../lib/train/run_folder.ts";

/** Three levels, 10,000 parameters: trains at patch 16. */
export const tiny: Architecture = resenc("tiny", [4, 8, 8], [1, 1, 1], 16);

/** A run of `method` at patch 16, cells of 4 voxels, two images a step. */
export function tinyRun(
  method: Method,
  arch: Architecture = tiny,
  changes: Partial<RunConfig> = {},
): RunConfig {
  const options = { ...method.options, ...("cell" in method.options ? { cell: 4 } : {}) };
  return {
    method: method.name,
    arch: arch.name,
    patch: [16, 16, 16],
    batch: 2,
    steps: 10,
    seed: 3,
    lr: 0.01,
    options,
    data: "",
    ...changes,
  };
}
