/**
 * A stage of gpu-check in processes of its own: a kernel that hangs, or that leaves the GPU useless to its process, costs one
 * case, and the next goes on with a new process.
 */

import { UserError } from "../errors.ts";

/** What a stage asks before each of its cases. False: the case is left out. */
export type Begin = (name: string) => boolean;

/** Line by which a process says which case comes now, and its number. */
interface Beginning {
  begin: string;
  at: number;
}

/** Exit code of a process in which the GPU computes no more; its last row says why. */
export const BROKEN = 3;

/** Seconds until a process must have come to its first case: opening a large card that nobody else holds open takes some. */
const START = 30;
/** Seconds that a process may take to end: tens of GiB of a card are freed then. */
const END = 20;

/** Errors after which every call of the process fails: memory, faults, time limits. */
export const breaks = (row: object): boolean => /\(CUDA error (214|70[02]|71\d)\)/.test(JSON.stringify(row));

/** A process that writes rows as JSON lines. */
export interface Process {
  lines: AsyncIterator<string>;
  /** Ends it at once. */
  end(): void;
  /** How it ended, and what it said last on standard error. */
  ended: Promise<{ code: number; signal: string | null; said: string }>;
}

/** What `work` gives within some seconds; undefined when they are over. */
export async function within<T>(work: Promise<T>, seconds: number): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) =>
    timer = setTimeout(() => resolve(undefined), Math.max(0, seconds) * 1000)
  );
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Rows of a stage.
 * @param start a process for the cases from a number on
 * @param quiet seconds that a case may take
 * @param left seconds that the stage has left
 */
export async function* apart(
  start: (from: number) => Process,
  quiet: number,
  left: () => number,
): AsyncGenerator<object> {
  for (let from = 0;;) {
    const process = start(from);
    let now: Beginning | undefined;
    let [late, over, done, allowed] = [false, false, false, 0];
    try {
      for (;;) {
        allowed = now ? quiet : Math.max(quiet, START);
        const patience = Math.min(allowed, left());
        const next = await within(process.lines.next(), patience);
        late = next === undefined;
        over = late && patience < allowed;
        done = next?.done ?? false;
        if (!next || next.done) break;
        const row = JSON.parse(next.value) as object;
        if ("begin" in row) now = row as Beginning;
        else yield row;
      }
    } finally {
      if (!done) process.end();
    }
    if (over) {
      return yield {
        skipped: `${now?.begin ?? "all"} and what would follow: the time of this stage is over`,
      };
    }
    // A process that the driver does not let go of is left behind.
    const end = late ? undefined : await within(process.ended, END);
    if (end?.code === 0) return;
    if (end?.code !== BROKEN) {
      const said = end?.signal
        ? [`it was ended by ${end.signal}`, end.said]
        : [end ? end.said || `it ended with ${end.code}` : `it did not end within ${END} s`];
      const why = late ? `no result within ${allowed} s` : said.filter(Boolean).join("; ");
      yield { case: now?.begin, ok: false, error: why };
    }
    if (!now) return;
    from = now.at + 1;
  }
}

/** Lines of text, whole ones. */
async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (
    const part of stream.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
  ) {
    const lines = (rest + part).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

/**
 * Starts a program whose lines are rows. Where Deno may start none with LD_LIBRARY_PATH set, it is started without: it then
 * finds no NVRTC and no cuBLASLt there.
 */
export function spawn(program: string, args: readonly string[]): Process {
  const open = (env: Record<string, string>) =>
    new Deno.Command(program, { args: [...args], env, stdin: "null", stdout: "piped", stderr: "piped" })
      .spawn();
  let child: ReturnType<typeof open>;
  try {
    child = open({});
  } catch (error) {
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
    child = open({ LD_LIBRARY_PATH: "" });
  }
  const ended = (async () => {
    let said = "";
    for await (const line of linesOf(child.stderr)) said = line || said;
    const { code, signal } = await child.status;
    return { code, signal, said };
  })();
  const end = () => {
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
  };
  return { lines: linesOf(child.stdout), end, ended };
}

/** What the first process says of the card. @throws UserError with its sentence where there is none that works */
export async function first(rows: AsyncIterable<object>): Promise<{ card: string }> {
  for await (const row of rows) {
    if ("card" in row) return row as { card: string };
    const { error, skipped } = row as { error?: string; skipped?: string };
    throw new UserError((error ?? skipped ?? "the GPU says nothing").replace(/^gpu-check: /, ""));
  }
  throw new UserError("the GPU says nothing of itself");
}
