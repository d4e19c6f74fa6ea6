/** The same convolutions and training steps in PyTorch on the same card (`lib/bench/peer.py`). */
import { Peer, type Request } from "../bench/peer.ts";
import type { Stage } from "./speed.ts";
import type { Row } from "./table.ts";

/** A time of PyTorch in one `variant`: memory layout, compiled or not. */
export interface TorchRow extends Request {
  seconds: number;
  peak_bytes: number;
  variant: string;
}

const LAYOUTS = ["first", "last"];
/** Calls that are timed, after one that warms up: their median counts. */
const ROUNDS = 3;

/** 3^3 convolutions of one image, forward and both gradients. */
function convolutions(stages: readonly Stage[]): Request[] {
  const one = (channels: number, side: number, direction: string) => ({
    work: "conv",
    channels,
    side,
    direction,
    dtype: "bf16",
  });
  return stages.flatMap(([c, side]) => ["forward", "input", "weight"].map((d) => one(c, side, d)));
}

/** What is asked of PyTorch, in the order of its worth: whole steps, the first of them compiled, convolutions, the rest compiled. */
export function requests(stages: readonly Stage[], steps: readonly Request[]): Request[] {
  const compiled = steps.map((step) => ({ ...step, compiled: true }));
  const all = [...steps, ...compiled.slice(0, 1), ...convolutions(stages), ...compiled.slice(1)];
  return all.flatMap((request) => LAYOUTS.map((layout) => ({ ...request, layout })));
}

/**
 * The versions of the libraries, then the time of each request. A step has a process of its own, so that its memory is its
 * own; convolutions share one. A request that fails, or does not end within the seconds `left`, gives its error.
 */
export async function* torch(
  python: string,
  device: "cpu" | "cuda",
  list: readonly Request[],
  left: () => number,
): AsyncGenerator<TorchRow | { versions: unknown } | { skipped: string } | { failure: string }> {
  const open = () => new Peer(python, navigator.hardwareConcurrency);
  let shared: Peer | undefined;
  try {
    shared = open();
    using _late = after(left(), () => shared?.end());
    const versions = (await shared.ask({ work: "versions" })).versions ?? {};
    yield { versions };
    if (!versions.torch) {
      shared.end();
      return yield { skipped: `${python} has no PyTorch; --peer names one that has` };
    }
  } catch (failure) {
    return yield { skipped: (failure as Error).message };
  }
  for (const { layout, compiled, ...request } of list) {
    const variant = `layout ${layout}${compiled ? ", compiled" : ""}`;
    const alone = request.work === "step" ? open() : undefined;
    const peer = alone ?? (shared ??= open());
    try {
      using _late = after(left(), () => peer.end());
      const asked = { ...request, layout, compiled, device };
      await peer.ask(asked);
      const times: number[] = [];
      let peak_bytes = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const answer = await peer.ask(asked);
        times.push(answer.seconds!);
        peak_bytes = answer.peak_bytes!;
      }
      yield { ...request, variant, seconds: times.sort((a, b) => a - b)[ROUNDS >> 1], peak_bytes };
    } catch (failure) {
      yield { ...request, variant, failure: (failure as Error).message };
      if (peer === shared) shared = void peer.end();
    } finally {
      alone?.end();
    }
  }
  shared?.end();
}

/** Calls `then` after some seconds, unless it is disposed of before. */
function after(seconds: number, then: () => void): Disposable {
  const timer = setTimeout(then, Math.max(0, seconds) * 1000);
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

/** Our steps beside the fastest variant of PyTorch: how many times faster, and the share of its memory. */
export function* ratios(rows: readonly Row[]): Generator<object> {
  const same = (a: Row, b: Row) => ["method", "patch", "batch"].every((key) => a[key] === b[key]);
  for (const own of rows.filter((row) => row.stage === "step" && row.variant === "plain" && row.seconds)) {
    const peers = rows.filter((row) =>
      row.stage === "torch" && row.work === "step" && row.seconds && (row.arch ?? "resenc-l") === own.arch &&
      same(row, own)
    );
    const best = peers.sort((a, b) => Number(a.seconds) - Number(b.seconds))[0];
    if (!best) continue;
    const { method, arch, patch, batch } = own;
    yield {
      ...{
        method,
        arch,
        patch,
        batch,
        variant: best.variant,
        seconds: own.seconds,
        torch_seconds: best.seconds,
      },
      times_faster: Number(best.seconds) / Number(own.seconds),
      share_of_memory: Number(own.peak_bytes) / Number(best.peak_bytes),
    };
  }
}
