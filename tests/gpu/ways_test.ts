/** Which ways of computing a check turns on for the runs after it. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import type { Row } from "../../lib/gpu/table.ts";
import { keepWays, shown, useWays } from "../../lib/gpu/ways.ts";

const card = "NVIDIA H200";
const judged: Row[] = ["fragments", "parity", "truth"].map((stage) => ({
  stage,
  card,
  error: 1e-6,
  ok: true,
}));
const cnn = { method: "s3d", arch: "resenc-l", kind: "cnn", patch: 128, batch: 2 };
const token = { method: "mae", arch: "primus-m", kind: "token", patch: 160, batch: 2 };
const step = (work: object, variant: string, seconds: number, more: object = {}): Row => ({
  ...{ stage: "step", card, variant, seconds, losses: [1, 0.9, 0.8] },
  ...work,
  ...more,
});
const plain = [step(cnn, "plain", 1, { losses: [1, 0.9, 0.8, 0.7] }), step(token, "plain", 2)];

Deno.test("ways: of each kind of network the fastest that was right is kept; graphs where they are best for all", () => {
  const some = [...judged, ...plain, step(cnn, "wgmma", 0.6), step(cnn, "graphs", 0.7)];
  assertEquals(shown(some), ["wgmma"]);
  assertEquals(shown([...some, step(token, "cuBLASLt", 1.5), step(token, "graphs", 1.8)]), [
    "wgmma",
    "cuBLASLt",
  ]);
  assertEquals(shown([...some, step(token, "cuBLASLt", 1.9), step(token, "graphs", 1.8)]), ["wgmma"]);
  const graphs = [step(cnn, "graphs", 0.5), step(token, "graphs", 1.5)];
  assertEquals(shown([...judged, ...plain, step(cnn, "wgmma", 0.6), ...graphs]), ["graphs"]);
  assertEquals(shown([...judged, ...plain, step(cnn, "wgmma", 0.99), step(token, "cuBLASLt", 2.1)]), []);
});

Deno.test("ways: other losses, a failed step, a failed or missing judge keep nothing", () => {
  const fast = step(cnn, "wgmma", 0.5);
  assertEquals(shown([...judged, ...plain, fast]), ["wgmma"]);
  const other = step({ ...cnn, patch: 160 }, "wgmma", 0.5);
  assertEquals(shown([...judged, ...plain, fast, other]), [], "a step without its plain one");
  assertEquals(shown([...judged, ...plain, step(cnn, "wgmma", 0.5, { losses: [1, 0.9, 0.81] })]), []);
  assertEquals(shown([...judged, ...plain, step(cnn, "wgmma", 0.5, { losses: [1, NaN, NaN] })]), []);
  assertEquals(shown([...judged, ...plain, { ...fast, ok: false }]), []);
  for (const [i, stage] of ["fragments", "parity", "truth"].entries()) {
    assertEquals(shown([...judged.toSpliced(i, 1), ...plain, fast]), [], stage);
    for (const fault of [{ ok: false }, { error: "lost" }, { skipped: "no time" }]) {
      assertEquals(shown([...judged, { stage, card, ...fault }, ...plain, fast]), [], stage);
    }
  }
});

Deno.test("ways: what a check keeps is found again, for its card and its kernels alone", async () => {
  const folder = await Deno.makeTempDir();
  try {
    assertEquals(useWays(folder, card), undefined);
    keepWays(join(folder, "new"), card, judged);
    assertEquals(useWays(join(folder, "new"), card)?.ways, []);
    assertEquals(useWays(join(folder, "new"), "another card"), undefined);
    const file = join(folder, "new", "NVIDIA-H200.json");
    const text = Deno.readTextFileSync(file);
    for (
      const damaged of [
        text.slice(0, -4),
        text.replace("[]", '["magic"]'),
        text.replace(/"kernels":\d+/, '"kernels":7'),
        "{}",
      ]
    ) {
      Deno.writeTextFileSync(file, damaged);
      assertEquals(useWays(join(folder, "new"), card), undefined, damaged);
    }
    Deno.writeTextFileSync(join(folder, "file"), "");
    keepWays(join(folder, "file"), card, judged); // a line in the log, no error
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
