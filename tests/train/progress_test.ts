import { assertEquals, assertStringIncludes } from "@std/assert";
import { Countdown, Progress } from "../../lib/train/progress.ts";

/** What `work` logs while the clock is ours: `pass(s)` lets seconds go by. */
function logged(work: (pass: (seconds: number) => void) => void): string[] {
  const { now } = performance;
  const { writeSync } = Deno.stderr;
  const lines: string[] = [];
  let at = 5000;
  performance.now = () => at;
  Deno.stderr.writeSync = (bytes) => {
    lines.push(new TextDecoder().decode(bytes).trim());
    return bytes.length;
  };
  try {
    work((seconds) => at += 1000 * seconds);
  } finally {
    performance.now = now;
    Deno.stderr.writeSync = writeSync;
  }
  return lines;
}

Deno.test("progress: the time left counts the waiting between steps, and not the first step", () => {
  const lines = logged((pass) => {
    const progress = new Progress(8);
    for (const [i, wall] of [30, 1.5, 1.5].entries()) {
      pass(wall);
      progress.show({ step: i + 1, loss: 1, seconds: 0.25 }, 2 ** 30);
    }
  });
  assertEquals(lines.length, 3);
  assertStringIncludes(lines[0], "step 1/8");
  assertStringIncludes(lines[2], "0.67 steps/s  8 s left  1.00 GiB"); // 5 steps of 1.5 s
});

Deno.test("countdown: a line a second at most, and one at the end", () => {
  const lines = logged((pass) => {
    const left = new Countdown(4);
    for (let i = 1; i <= 4; i++) {
      pass(0.6);
      left.show("validation", i);
    }
    assertEquals(new Countdown(3).at(1, " p1"), "1/3 p1, 0 s left");
  });
  assertEquals(lines, ["validation 1/4, 2 s left", "validation 3/4, 1 s left", "validation 4/4, 0 s left"]);
});
