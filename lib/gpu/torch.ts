/** The same convolutions and training steps in PyTorch on the same card (`lib/bench/peer.py`). */
import { Peer, type Request } from "../bench/peer.ts";
import type { Stage } from "./speed.ts";

/** A time of PyTorch; `variant`: the faster memory layout. */
export interface TorchRow extends Request {
  seconds: number;
  peak_bytes: number;
  variant: string;
}

const LAYOUTS = ["first", "last"];

/** What is asked of PyTorch beside our own: 3^3 convolutions of one image, and whole steps. */
export function requests(stages: readonly Stage[], steps: readonly Request[]): Request[] {
  const convolutions = stages.flatMap(([channels, side]) =>
    ["forward", "input", "weight"].map((direction) => ({
      work: "conv",
      channels,
      side,
      direction,
      dtype: "bf16",
    }))
  );
  return [...convolutions, ...steps];
}

/**
 * The versions of the libraries, then the fastest of both layouts for each request after one call that warms up; one
 * process each, so that its memory is its own. A request that fails gives its error.
 */
export async function* torch(
  python: string,
  device: "cpu" | "cuda",
  list: readonly Request[],
): AsyncGenerator<TorchRow | { versions: unknown } | { error: string }> {
  try {
    await using peer = new Peer(python, navigator.hardwareConcurrency);
    yield { versions: (await peer.ask({ work: "versions" })).versions };
  } catch (failure) {
    return yield { error: (failure as Error).message };
  }
  for (const request of list) {
    try {
      await using peer = new Peer(python, navigator.hardwareConcurrency);
      let best: TorchRow | undefined;
      for (const layout of LAYOUTS) {
        const asked = { ...request, layout, device };
        await peer.ask(asked);
        const { seconds, peak_bytes } = await peer.ask(asked);
        if (!best || seconds! < best.seconds) {
          best = { ...request, seconds: seconds!, peak_bytes: peak_bytes!, variant: `layout ${layout}` };
        }
      }
      yield best!;
    } catch (failure) {
      yield { ...request, error: (failure as Error).message };
    }
  }
}
