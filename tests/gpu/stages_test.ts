/** The stages of gpu-check: time, failures, what is beside PyTorch. */
import { assertEquals } from "@std/assert";
import { inOrder, type Work } from "../../lib/gpu/speed.ts";
import { Stages } from "../../lib/gpu/stages.ts";
import { markdown, type Row } from "../../lib/gpu/table.ts";
import { ratios, requests } from "../../lib/gpu/torch.ts";

const rowsOf = (...rows: object[]) =>
  async function* () {
    yield* await Promise.resolve(rows);
  };

Deno.test("stages: rows go out as they come, a failure ends its stage alone, what is not wanted does not run", async () => {
  const out: Row[] = [];
  const stages = new Stages("card", 60, ["a", "b", "c"], (row) => out.push(row));
  await stages.run("a", 10, rowsOf({ x: 1 }, { x: 2, ok: false }));
  await stages.run("b", 10, () => {
    throw new Error("it broke");
  });
  await stages.run("c", 10, rowsOf({ y: 1 }));
  await stages.run("d", 10, rowsOf({ z: 1 }));
  assertEquals(out, stages.rows);
  assertEquals(out.map(({ card: _, ...row }) => row), [
    { stage: "a", x: 1 },
    { stage: "a", x: 2, ok: false },
    { stage: "b", error: "it broke" },
    { stage: "c", y: 1 },
  ]);
  assertEquals(stages.failed, 2);
  assertEquals(markdown(out).includes("it broke"), true);
});

Deno.test("stages: a stage whose time is over says so, and so does one after the end", async () => {
  const stages = new Stages("card", 60, undefined, () => {});
  await stages.run("slow", 0, rowsOf({ x: 1 }, { x: 2 }));
  assertEquals(stages.rows.map((row) => [row.x, row.skipped]), [
    [1, undefined],
    [undefined, "what would follow: the 0 s of this stage are over"],
  ]);
  const late = new Stages("card", 0, undefined, () => {});
  await late.run("any", 10, rowsOf({ x: 1 }));
  assertEquals(late.rows[0].skipped, "the 0 s of the check are over");
});

Deno.test("torch: steps come first, compiled ones last; ours stands beside its fastest variant, per image", () => {
  const steps = ["s3d", "mae"].map((method) => ({ work: "step", method, patch: 8, batch: 1, dtype: "bf16" }));
  const asked = requests([[4, 8]], steps);
  assertEquals(asked.map((r) => `${r.method ?? r.direction}, ${r.compiled ? "compiled" : r.layout}`), [
    ...["first", "last"].flatMap((layout) =>
      ["s3d", "mae", "forward", "input", "weight"].map((what) => `${what}, ${layout}`)
    ),
    ...["s3d, compiled", "mae, compiled"],
  ]);
  const about = { card: "card", method: "s3d", patch: 8, batch: 1 };
  const rows: Row[] = [
    { ...about, stage: "step", arch: "resenc-l", variant: "plain", batch: 3, seconds: 3, peak_bytes: 30 },
    { ...about, stage: "step", arch: "resenc-l", variant: "graphs", seconds: 0.5, peak_bytes: 10 },
    { ...about, stage: "torch", work: "step", variant: "layout first", seconds: 8, peak_bytes: 30 },
    { ...about, stage: "torch", work: "step", variant: "layout last, compiled", seconds: 4, peak_bytes: 40 },
    { ...about, stage: "torch", work: "step", variant: "layout last", failure: "out of memory" },
  ];
  const [ratio, ...rest] = [...ratios(rows)] as Row[];
  assertEquals(rest, []);
  assertEquals([ratio.variant, ratio.times_faster, ratio.share_of_memory], [
    "layout last, compiled",
    4,
    0.25,
  ]);
});

Deno.test("steps: plain ones come first, then each variant on the smallest step of each kind, then the rest", () => {
  const work: Work[] = [["s3d", "resenc-l", 160, 6], ["mae", "primus-m", 160, 2], [
    "s3d",
    "resenc-l",
    128,
    2,
  ]];
  const order = inOrder(work).map(({ way, work: [, arch, patch] }) => `${way.name}, ${arch} ${patch}`);
  const small = "resenc-l 128", [tokens, large] = ["primus-m 160", "resenc-l 160"];
  assertEquals(order, [
    ...[large, tokens, small].map((of) => `plain, ${of}`),
    ...[`wgmma, ${small}`, `norm on load, ${small}`, `cuBLASLt, ${tokens}`],
    ...[`graphs, ${tokens}`, `graphs, ${small}`],
    ...["wgmma", "norm on load", "graphs"].map((variant) => `${variant}, ${large}`),
  ]);
});
