/** The small cases of gpu-check under NVIDIA's compute-sanitizer, where that is installed. */
import { type Process, spawn, within } from "./apart.ts";

/** What one tool of it found. */
export interface SanitizerRow {
  tool: string;
  ok?: boolean;
  /** Its own summary; where it was ended before, the first that it found by then. */
  summary?: string;
  skipped?: string;
}

/** Looked for in this order: memory, then races in shared memory. */
const TOOLS = ["memcheck", "racecheck"];
/** What the tool says begins so. */
const SAID = /^=+ ?/;

/** Reads what a tool says for at most `seconds`, then ends it. */
async function said(process: Process, seconds: number): Promise<{ lines: string[]; ended: boolean }> {
  const end = performance.now() + seconds * 1000;
  const lines: string[] = [];
  for (;;) {
    const next = await within(process.lines.next(), (end - performance.now()) / 1000);
    if (!next) process.end();
    if (!next || next.done) return { lines, ended: !next };
    if (SAID.test(next.value)) lines.push(next.value.replace(SAID, "").trim());
  }
}

/** What the lines of one tool amount to. `ended`: its time was over before it had a summary. */
export function judged(
  tool: string,
  lines: readonly string[],
  ended: boolean,
  seconds: number,
): SanitizerRow {
  const refused = lines.find((line) => /not supported/i.test(line));
  if (refused) return { tool, skipped: refused };
  const summary = lines.findLast((line) => /^(ERROR|RACECHECK) SUMMARY: /.test(line));
  if (summary) return { tool, ok: / 0 (errors|hazards)/.test(summary), summary };
  const found = lines.find((line) => /^(Invalid|Error|Warning|Race|Program hit)|hazard/i.test(line));
  if (found) return { tool, ok: false, summary: found };
  if (ended) return { tool, skipped: `it found nothing in the ${Math.round(seconds)} s that it had` };
  return { tool, ok: false, summary: lines.at(-1) ?? "it says nothing" };
}

/**
 * Runs `line` (a program and its arguments) under each tool, for at most `seconds` each.
 * @param program compute-sanitizer, on PATH or a path
 * @param left seconds that there are for all
 */
export async function* sanitized(
  program: string,
  line: readonly string[],
  seconds: number,
  left: () => number,
): AsyncGenerator<SanitizerRow> {
  for (const tool of TOOLS) {
    const args = ["--tool", tool, "--target-processes", "all", "--error-exitcode", "9", ...line];
    const time = Math.min(seconds, left());
    try {
      const { lines, ended } = await said(spawn(program, args), time);
      yield judged(tool, lines, ended, time);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable)) throw error;
      return yield { tool, skipped: `${program} is not installed; --sanitizer names it` };
    }
  }
}
