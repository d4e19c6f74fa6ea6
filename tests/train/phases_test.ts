import { assertAlmostEquals, assertEquals } from "@std/assert";
import { phaseAt, schedules } from "../../lib/train/phases.ts";

Deno.test("phases: sawtooth of 1000 is 25 + 25 on the decoder, 50 + 900 on everything", () => {
  const at = (step: number) => phaseAt("sawtooth", step, 1000, 1e-3);
  assertEquals([at(0).trainable, at(49).trainable, at(50).trainable], ["decoder", "decoder", "all"]);
  assertEquals([at(49).stage, at(50).stage, at(999).stage], [0, 1, 1]);
  assertAlmostEquals(at(0).lr, 1e-3 / 25, 1e-12);
  assertAlmostEquals(at(25).lr, 1e-3, 1e-12);
  assertAlmostEquals(at(49).lr, 1e-3 * (1 - 24 / 25) ** .9, 1e-12);
  assertAlmostEquals(at(50).lr, 1e-3 / 50, 1e-12);
  assertAlmostEquals(at(100).lr, 1e-3, 1e-12);
  assertAlmostEquals(at(999).lr, 1e-3 * (1 / 900) ** .9, 1e-12);
});

Deno.test("phases: warm-up, frozen, full and scratch", () => {
  assertAlmostEquals(phaseAt("warmup", 0, 1000, 1e-3).lr, 1e-5, 1e-12);
  assertAlmostEquals(phaseAt("warmup", 99, 1000, 1e-3).lr, 1e-3, 1e-12);
  assertAlmostEquals(phaseAt("full", 500, 1000, 1e-3).lr, 1e-3 * .5 ** .9, 1e-12);
  assertEquals(phaseAt("scratch", 0, 10, .01), { stage: 0, trainable: "all", lr: .01 });
  for (let step = 0; step < 40; step++) assertEquals(phaseAt("frozen", step, 40, 1).trainable, "decoder");
});

Deno.test("phases: every rate of every length is positive and finite", () => {
  for (const name of schedules) {
    for (const total of [1, 2, 3, 5, 10, 60]) {
      for (let step = 0; step < total; step++) {
        const { lr } = phaseAt(name, step, total, 1);
        assertEquals([name, total, step, lr > 0 && lr <= 1], [name, total, step, true]);
      }
    }
  }
});
