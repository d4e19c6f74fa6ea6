/** The stages of gpu-check: time, failures, what is beside PyTorch. */
import { assertEquals } from "@std/assert";
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

Deno.test("torch: steps come first, the first compiled next; ours stands beside its fastest variant", () => {
  const steps = ["s3d", "mae"].map((method) => ({ work: "step", method, patch: 8, batch: 1, dtype: "bf16" }));
  const asked = requests([[4, 8]], steps).filter((request) => request.layout === "first");
  assertEquals(asked.map((r) => `${r.method ?? r.direction}${r.compiled ? " compiled" : ""}`), [
    "s3d",
    "mae",
    "s3d compiled",
    "forward",
    "input",
    "weight",
    "mae compiled",
  ]);
  const about = { card: "card", method: "s3d", patch: 8, batch: 1 };
  const rows: Row[] = [
    { ...about, stage: "step", arch: "resenc-l", variant: "plain", seconds: 1, peak_bytes: 10 },
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
