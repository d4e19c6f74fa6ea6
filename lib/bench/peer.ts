/** The peer of a benchmark: a Python process that does the same work with PyTorch, SciPy or nibabel (`peer.py`). */
import { fromFileUrl } from "@std/path";
import { UserError } from "../errors.ts";

/** What the peer is asked to do: `work` and the shape of it. */
export type Request = { work: string } & Record<string, unknown>;

interface Answer {
  seconds?: number;
  peak_bytes?: number;
  versions?: Record<string, string>;
  error?: string;
}

/** A running peer. One per case, so that its peak memory is that of the case. */
export class Peer implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  /** @param python interpreter with torch, numpy, scipy and nibabel */
  constructor(readonly python: string, threads: number) {
    try {
      this.#child = new Deno.Command(python, {
        args: [fromFileUrl(new URL("peer.py", import.meta.url))],
        stdin: "piped",
        stdout: "piped",
        stderr: "null",
        // glibc told to keep its memory: 1.3 to 1.6 times faster steps for PyTorch, and one line for its users.
        env: {
          OMP_NUM_THREADS: String(threads),
          MALLOC_MMAP_THRESHOLD_: "4294967296",
          MALLOC_TRIM_THRESHOLD_: "4294967296",
        },
      }).spawn();
    } catch (error) {
      throw new UserError(
        `--peer ${python}: it does not start (${(error as Error).message}); name a python3`,
      );
    }
    this.#input = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** @throws UserError when the peer dies or cannot do the work */
  async ask(request: Request): Promise<Answer> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(request) + "\n"));
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) throw new UserError(`--peer ${this.python}: it ended during ${JSON.stringify(request)}`);
      this.#rest += value;
    }
    const at = this.#rest.indexOf("\n");
    const answer = JSON.parse(this.#rest.slice(0, at)) as Answer;
    this.#rest = this.#rest.slice(at + 1);
    if (answer.error) throw new UserError(`--peer ${this.python}: ${request.work}: ${answer.error}`);
    return answer;
  }

  /** Ends it at once, whatever it does: what was asked fails. */
  end(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch { /* it has ended */ }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {/* it has ended */});
    await this.#lines.cancel();
    await this.#child.status;
  }
}
