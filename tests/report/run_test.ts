import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { runReport } from "../../lib/report/run.ts";

const metrics = Array.from({ length: 1500 }, (_, i) => ({
  step: i + 1,
  loss: 3 * Math.exp(-i / 400) + 0.1 * Math.sin(i * i),
  lr: 1e-4 * (1 - i / 1500),
  seconds: 0.2,
  reconstruction: 1 / (i + 1),
  contrastive: Math.log(i + 2),
}));

Deno.test("run report: self-contained, every term drawn, texts escaped", () => {
  const config = {
    method: "cva",
    arch: "resenc-s",
    options: { note: "<b>&", patch: [64, 64, 64] },
    absent: undefined,
  };
  const crops = [{ name: "pair 'a'", png: Uint8Array.of(137, 80, 78, 71) }];
  const page = runReport({
    config,
    metrics,
    crops,
    summary: { steps: 1500, seconds: 300.123456, run: "runs/x" },
  });
  assertEquals(page.match(/<svg/g)?.length, 5, "loss, two terms, learning rate, speed");
  for (
    const words of [
      "Term: reconstruction",
      "Term: contrastive",
      "options.note",
      "&lt;b&gt;&amp;",
      "[64,64,64]",
      "300.12",
    ]
  ) {
    assertStringIncludes(page, words);
  }
  assertStringIncludes(page, 'src="data:image/png;base64,iVBORw=="');
  assert(!/<script|<link|@import|url\(|(src|href)="(?!data:)/.test(page), "nothing from outside");
  assert(!page.includes("NaN"));
  assert(page.length < 300_000, `${page.length} characters`);
});

Deno.test("run report: no step, one step, a term that comes late", () => {
  assertStringIncludes(runReport({ config: {}, metrics: [], crops: [], summary: {} }), "No step");
  const one = { step: 1, loss: 2, lr: 0, seconds: 1 };
  assertEquals(runReport({ config: {}, metrics: [one], crops: [], summary: {} }).match(/<svg/g)?.length, 3);
  const page = runReport({
    config: {},
    metrics: [one, { ...one, step: 2, late: 1 }],
    crops: [],
    summary: {},
  });
  assertEquals(page.match(/<svg/g)?.length, 4);
  assert(!page.includes("NaN"));
});
