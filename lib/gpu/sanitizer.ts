/** The small cases of gpu-check under NVIDIA's compute-sanitizer, where that is installed. */
import { runTool } from "./tools.ts";

/** What one tool of it found. */
export interface SanitizerRow {
  tool: string;
  ok?: boolean;
  summary?: string;
  skipped?: string;
}

/** Looked for in this order: memory, then races in shared memory. */
const TOOLS = ["memcheck", "racecheck"];

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
    try {
      const { text, ended } = await runTool(program, args, Math.min(seconds, left()));
      if (ended) {
        yield { tool, skipped: `it took longer than ${Math.round(seconds)} s` };
        continue;
      }
      const summary = text.match(/(ERROR|RACECHECK) SUMMARY: [^\n]*/g)?.at(-1);
      yield {
        tool,
        ok: / 0 (errors|hazards)/.test(summary ?? ""),
        summary: summary ?? text.trim().slice(-300),
      };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable)) throw error;
      return yield { tool, skipped: `${program} is not installed; --sanitizer names it` };
    }
  }
}
