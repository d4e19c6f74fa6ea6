/** What fine-tuning says that it needs, beside what it takes. */
import { assert, assertEquals } from "@std/assert";
import type { ModelInfo } from "../../lib/eval/model.ts";
import { native } from "../../lib/native/library.ts";
import { memory, wait } from "../../lib/tensor.ts";
import { crops, tuningOf } from "./tuning.ts";

for (
  const [title, changes] of [
    ["segmentation, two channels", { channels: ["T1", "T2"] }],
    ["segmentation with a frozen encoder", { schedule: "frozen" }],
    ["segmentation on tokens", { arch: "primus-s" }],
    ["classification", { task: "classification", labels: [3, 7], batch: 4 }],
    ["regression", { task: "regression", labels: [], target: { mean: 0, sd: 1 }, batch: 4 }],
  ] as [string, Partial<ModelInfo>][]
) {
  Deno.test(`finetune: ${title} takes what was planned`, async () => {
    const tuning = tuningOf(changes);
    const { bytes, fixed } = await tuning.plan();
    const kept = tuning.model.parameters.count() * 4;
    assert(fixed >= kept && fixed < bytes, `${fixed} of ${bytes} are fixed, the parameters alone ${kept}`);
    native().vx_peak_reset();
    const taken = await crops(tuning.info);
    await tuning.step(0, taken);
    const { peakBytes } = memory();
    assert(peakBytes > 0.8 * bytes && peakBytes < 1.25 * bytes, `planned ${bytes}, taken ${peakBytes}`);
    taken.views[Symbol.dispose]();
    tuning[Symbol.dispose]();
    await wait();
    assertEquals(memory().bytes, 0);
  });
}
