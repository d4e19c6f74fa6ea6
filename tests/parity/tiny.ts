/** Networks and runs small enough to train in a test. */
import { mednext } from "../../lib/arch/mednext.ts";
import { primus } from "../../lib/arch/primus.ts";
import { architectures } from "../../lib/arch/registry.ts";
import { resenc } from "../../lib/arch/resenc.ts";
import { swinunetr } from "../../lib/arch/swinunetr.ts";
import { unet } from "../../lib/arch/unet.ts";
import { fillOptions } from "../../lib/methods/options.ts";
import type { Method } from "../../lib/methods/method.ts";
import type { Architecture } from "../../lib/nn/network.ts";
import { presetOf, presets } from "../../lib/train/presets.ts";
import type { RunConfig } from "../../lib/train/run_folder.ts";

/** Three levels, 10,000 parameters: trains at patch 16. */
export const tiny: Architecture = resenc("tiny resenc", [4, 8, 8], [1, 1, 1], 16);

/** Small builds of the families of networks, by the first word of their names. */
const small: Record<string, Architecture> = {
  resenc: tiny,
  unet: { ...unet("tiny unet", 4, 3), headWidth: 16 },
  mednext: { ...mednext("tiny mednext", 4, { blocks: [1, 1, 2], ratios: [2, 3, 2] }), headWidth: 16 },
  swinunetr: { ...swinunetr("tiny swinunetr", { width: 4, heads: [1, 2], edge: 3 }), headWidth: 16 },
  primus: { ...primus("tiny primus", 96, 2, 2), headWidth: 16 },
};

/** One network of every family of the registry: its small build, or its first entry where there is none. */
export function families(): Architecture[] {
  const firsts = new Map<string, Architecture>();
  for (const arch of architectures) {
    const family = arch.name.split("-")[0];
    if (!firsts.has(family)) firsts.set(family, small[family] ?? arch);
  }
  return [...firsts.values()];
}

/** A run of `method` at the smallest patch, four cells per axis, 3^3 aligned positions, two images a step. */
export function tinyRun(
  method: Method,
  arch: Architecture = tiny,
  changes: Partial<RunConfig> = {},
): RunConfig {
  const side = Math.max(16, 2 * arch.stride);
  const kind = arch.kind ?? "cnn";
  const cell = kind === "cnn" && "cell" in method.options ? { cell: side / 4 } : {};
  const aligned = "aligned" in method.options ? { aligned: "3" } : {};
  const options = fillOptions(method.name, method.options, kind, { ...cell, ...aligned });
  return {
    method: method.name,
    arch: arch.name,
    patch: [side, side, side],
    batch: 2,
    steps: 30,
    seed: 3,
    // Networks as small as these take a high rate.
    lr: presetOf(method, arch) === presets.cnn ? 0.01 : 0.003,
    options,
    data: "",
    ...changes,
  };
}
