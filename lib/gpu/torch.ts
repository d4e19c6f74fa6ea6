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
/** Seconds for all calls of a request, and of one that is compiled first. */
const PATIENCE = { plain: 40, compiled: 120 };
/** Images of a step at most: at 160^3 PyTorch takes some 23 GiB for each. */
export const MOST_IMAGES = 2;

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

/** What is asked of PyTorch, in the order of its worth: steps and convolutions in either layout, then the steps compiled. */
export function requests(stages: readonly Stage[], steps: readonly Request[]): Request[] {
  const plain = [...steps, ...convolutions(stages)];
  return [
    ...LAYOUTS.flatMap((layout) => plain.map((request) => ({ ...request, layout }))),
    ...steps.map((step) => ({ ...step, compiled: true })),
  ];
}

/**
 * The versions of the libraries, then the time of each request. A step has a process of its own, so that its memory is its
 * own; convolutions share one. What is compiled is what ran, in its faster layout. A request that fails, or does not end
 * within its patience or the seconds `left`, gives its error.
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
  const best = new Map<string, { seconds: number; layout: unknown }>();
  for (const { layout: wanted, compiled, ...request } of list) {
    const what = JSON.stringify(request);
    if (compiled && !best.has(what)) continue;
    const layout = compiled ? best.get(what)!.layout : wanted;
    const variant = `layout ${layout}${compiled ? ", compiled" : ""}`;
    const alone = request.work === "step" ? open() : undefined;
    const peer = alone ?? (shared ??= open());
    const seconds = Math.min(left(), PATIENCE[compiled ? "compiled" : "plain"]);
    let late = false;
    try {
      using _late = after(seconds, () => {
        late = true;
        peer.end();
      });
      const asked = { ...request, layout, compiled, device };
      await peer.ask(asked);
      const times: number[] = [];
      let peak_bytes = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const answer = await peer.ask(asked);
        times.push(answer.seconds!);
        peak_bytes = answer.peak_bytes!;
      }
      const median = times.sort((a, b) => a - b)[ROUNDS >> 1];
      if (!(Number(best.get(what)?.seconds) <= median)) best.set(what, { seconds: median, layout });
      yield { ...request, variant, seconds: median, peak_bytes };
    } catch (failure) {
      const why = late ? `no result within ${Math.round(seconds)} s` : (failure as Error).message;
      yield { ...request, variant, failure: why };
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

/** Our steps beside the fastest variant of PyTorch, per image: how many times faster, and the share of its memory. */
export function* ratios(rows: readonly Row[]): Generator<object> {
  const same = (a: Row, b: Row) => ["method", "patch"].every((key) => a[key] === b[key]);
  for (const own of rows.filter((row) => row.stage === "step" && row.variant === "plain" && row.seconds)) {
    const peers = rows.filter((row) =>
      row.stage === "torch" && row.work === "step" && row.seconds && (row.arch ?? "resenc-l") === own.arch &&
      same(row, own)
    );
    const each = (row: Row, value: string) => Number(row[value]) / Number(row.batch);
    const best = peers.sort((a, b) => each(a, "seconds") - each(b, "seconds"))[0];
    if (!best) continue;
    const { method, arch, patch, batch } = own;
    yield {
      ...{ method, arch, patch, batch, torch_batch: best.batch, variant: best.variant },
      ...{ seconds: own.seconds, torch_seconds: best.seconds },
      times_faster: each(best, "seconds") / each(own, "seconds"),
      share_of_memory: each(own, "peak_bytes") / each(best, "peak_bytes"),
    };
  }
}
