/** Timing: our side and the peer's in turn, in one run, so that both meet the same machine. */
import { memory, wait } from "../tensor.ts";
import { native } from "../native/library.ts";
import { Peer, type Request } from "./peer.ts";

/** One thing to time. */
export interface Case {
  /** Group of the table: op, step, loader, preprocess, augment, nsd, rank. */
  group: string;
  name: string;
  /** Work of one call in `unit`: FLOP, voxels, replicates. */
  work: number;
  unit: string;
  /** Makes what is needed and returns what is timed, which ends when its work is done: one call, or `calls` of them. */
  prepare(): Promise<{ run: () => Promise<void>; calls?: number; free?: () => void }>;
  /** The same work for the peer, in the variants among which its fastest counts. Absent: it has none. */
  peer?: Request[];
  /** Type of the peak of the processor that the rate is compared with. */
  peak?: "f32" | "bf16";
  /** Whether the peer uses one core (SciPy, nibabel) or as many as we do. */
  cores?: 1;
}

/** One line of `deno task bench`. Seconds are medians; `ratio` is the peer's seconds over ours. */
export interface Row {
  group: string;
  name: string;
  seconds: number;
  best_seconds: number;
  rate: number;
  unit: string;
  share_of_peak?: number;
  /** Of our tensors. */
  peak_bytes?: number;
  /** Of our whole process (resident set), as `peer_peak_bytes` is the peer's. */
  resident_bytes?: number;
  peer_seconds?: number;
  peer_best_seconds?: number;
  peer_variant?: string;
  peer_peak_bytes?: number;
  ratio?: number;
  rounds: number;
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Peak FLOP per second of all threads, for f32 and for bf16 with f32 sums (0 where there is none). */
export async function peaks(): Promise<{ f32: number; bf16: number }> {
  return { f32: await native().vx_peak_wait(false, 400), bf16: await native().vx_peak_wait(true, 400) };
}

/** Seconds of one timing at least: short calls are repeated, as in a training step, on both sides (`peer.py`). */
const LEAST = 0.05;

/** Times a case `rounds` times after one call that warms up; the peer's fastest variant takes turns with us. */
export async function measure(
  of: Case,
  rounds: number,
  peak: { f32: number; bf16: number },
  peer?: { python: string; threads: number },
): Promise<Row> {
  native().vx_pool_empty();
  native().vx_peak_reset();
  const { run, calls: queued = 1, free } = await of.prepare();
  let short = false;
  let resident = 0;
  const time = async () => {
    // Calls wait for native work, so that the timer comes to its turn.
    const timer = setInterval(() => resident = Math.max(resident, Deno.memoryUsage().rss), 10);
    if (short) await run(); // cores that have slept are slow at first
    const begin = performance.now();
    let [calls, passed] = [0, 0];
    for (; passed < LEAST; calls += queued) {
      await run();
      passed = (performance.now() - begin) / 1000;
    }
    clearInterval(timer);
    short = passed / calls < LEAST;
    return passed / calls;
  };
  await time();
  const [ours, theirs]: number[][] = [[], []];
  let variant: Request | undefined;
  let peerBytes: number | undefined;
  if (peer && of.peer) {
    {
      await using first = new Peer(peer.python, of.cores ?? peer.threads); // ends before the timing
      let best = Infinity;
      for (const request of of.peer) {
        await first.ask(request);
        const { seconds } = await first.ask(request);
        if (seconds! < best) [best, variant] = [seconds!, request];
      }
    }
    await using second = new Peer(peer.python, of.cores ?? peer.threads);
    await second.ask(variant!);
    for (let round = 0; round < rounds; round++) {
      await new Promise((ready) => setTimeout(ready, 100)); // the peer's threads spin for a while after their work
      ours.push(await time());
      const answer = await second.ask(variant!);
      theirs.push(answer.seconds!);
      peerBytes = answer.peak_bytes;
    }
  } else {
    for (let round = 0; round < rounds; round++) ours.push(await time());
  }
  const bytes = memory().peakBytes;
  free?.();
  await wait();
  const seconds = median(ours);
  const differs = (key: string) => new Set(of.peer!.map((r) => String(r[key]))).size > 1;
  return {
    group: of.group,
    name: of.name,
    seconds,
    best_seconds: Math.min(...ours),
    rate: of.work / seconds,
    unit: of.unit,
    ...(of.peak && peak[of.peak] ? { share_of_peak: of.work / seconds / peak[of.peak] } : {}),
    ...(of.group === "step" ? { peak_bytes: bytes, resident_bytes: resident } : {}),
    ...(variant
      ? {
        peer_seconds: median(theirs),
        peer_best_seconds: Math.min(...theirs),
        peer_variant: ["dtype", "layout", "compiled"].filter(differs).map((k) =>
          `${k} ${variant![k] ?? false}`
        ).join(
          ", ",
        ),
        ...(of.group === "step" ? { peer_peak_bytes: peerBytes } : {}),
        ratio: median(theirs) / seconds,
      }
      : {}),
    rounds,
  };
}
