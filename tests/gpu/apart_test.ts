/** Stages in processes of their own: what hangs, breaks or ends costs its case, and the time of a stage holds. */
import { assertEquals, assertRejects } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { apart, breaks, BROKEN, first, type Process } from "../../lib/gpu/apart.ts";

/** What happens in a case: a row, no end, the end of the process, a context that is broken. */
type Fate = "good" | "hangs" | "ends" | "breaks";

/** Processes that go through `fates` as gpu-check goes through cases; `open` are those that neither ended nor were ended. */
function processes(fates: Fate[]) {
  const begun: number[] = [];
  const open = new Set<number>();
  const start = (from: number): Process => {
    begun.push(from);
    open.add(from);
    let code = 0;
    async function* lines(): AsyncGenerator<string> {
      for (let at = from; at < fates.length; at++) {
        yield JSON.stringify({ begin: `case ${at}`, at });
        if (fates[at] === "hangs") await new Promise(() => {});
        if (fates[at] === "ends") {
          code = 134;
          break;
        }
        yield JSON.stringify({ stage: "s", value: at, ok: fates[at] === "good" });
        if (fates[at] === "breaks") {
          code = BROKEN;
          break;
        }
      }
      open.delete(from);
    }
    const of = lines();
    const ended = () => Promise.resolve({ code, signal: null, said: code === 134 ? "it aborted" : "" });
    return {
      lines: of,
      end: () => void open.delete(from),
      get ended() {
        return ended();
      },
    };
  };
  return { start, begun, open };
}

async function rowsOf(fates: Fate[], quiet: number, seconds: number) {
  const { start, begun, open } = processes(fates);
  const began = performance.now();
  const rows: object[] = [];
  const left = () => seconds - (performance.now() - began) / 1000;
  for await (const row of apart(start, quiet, left)) rows.push(row);
  assertEquals([...open], [], "no process is left");
  return { rows, begun };
}

const row = (value: number, ok = true) => ({ stage: "s", value, ok });

Deno.test("apart: all that goes well is one process", async () => {
  const { rows, begun } = await rowsOf(["good", "good"], 5, 5);
  assertEquals([rows, begun], [[row(0), row(1)], [0]]);
});

Deno.test("apart: a hang, an abort and a broken context cost their case, the next begins in a new process", async () => {
  const { rows, begun } = await rowsOf(["good", "hangs", "ends", "breaks", "good", "ends"], 0.05, 5);
  assertEquals(begun, [0, 2, 3, 4, 6]);
  assertEquals(rows, [
    row(0),
    { case: "case 1", ok: false, error: "no result within 0.05 s" },
    { case: "case 2", ok: false, error: "it aborted" },
    row(3, false),
    row(4),
    { case: "case 5", ok: false, error: "it aborted" },
  ]);
});

Deno.test("apart: a stage whose time is over ends with what it has", async () => {
  const { rows } = await rowsOf(["good", "hangs", "good"], 5, 0.05);
  assertEquals(rows, [row(0), { skipped: "case 1 and what would follow: the time of this stage is over" }]);
});

Deno.test("apart: errors that break a context, and those that do not", () => {
  assertEquals(breaks({ error: "conv3d: a kernel read or wrote outside its memory (CUDA error 700)" }), true);
  assertEquals(breaks({ error: "a kernel failed (CUDA error 719)" }), true);
  assertEquals(breaks({ error: "the memory is used up (CUDA error 2)" }), false);
  assertEquals(breaks({ value: 700 }), false);
});

Deno.test("apart: where there is no card, its sentence is the error", async () => {
  async function* none() {
    yield await Promise.resolve({
      case: undefined,
      ok: false,
      error: "gpu-check: no CUDA driver is installed",
    });
  }
  await assertRejects(() => first(none()), UserError, "no CUDA driver is installed");
});
