/** Times of kernels and of whole training steps on the GPU in use. */
import { architecture } from "../arch/registry.ts";
import { deviceReport, onCard } from "../device.ts";
import { fillOptions } from "../methods/options.ts";
import { method } from "../methods/registry.ts";
import { native } from "../native/library.ts";
import type { Architecture } from "../nn/network.ts";
import { Grid, type Layout, memory, scope, type Side, Tensor, wait } from "../tensor.ts";
import { Trainer } from "../train/pretrain.ts";
import type { Begin } from "./apart.ts";
import { noise } from "./parity.ts";
import { holdRoom } from "./room.ts";
import { type Way, WAYS } from "./ways.ts";

/** Dense bf16 products of cards with f32 sums, in TFLOP/s, by a word of their name (data sheets). */
const PEAKS: [RegExp, number][] = [
  [/H100|H200|GH200/, 989],
  [/A100|A800/, 312],
  [/B200/, 2250],
  [/L40S/, 362],
  [/L40/, 181],
  [/A6000/, 155],
  [/4090/, 165],
];

/** Peak of a card in FLOP/s, or undefined for one that is not listed. */
export function peakOf(card: string): number | undefined {
  const found = PEAKS.find(([name]) => name.test(card));
  return found && found[1] * 1e12;
}

/** Milliseconds of a call on the card, which makes a tensor: the mean of `rounds`, after one that warms up. */
export async function timed(call: () => number, rounds: number): Promise<number> {
  const n = native();
  n.vx_tensor_free(call());
  n.vx_device_mark();
  for (let round = 0; round < rounds; round++) n.vx_tensor_free(call());
  n.vx_device_mark();
  await wait();
  return n.vx_device_milliseconds() / rounds;
}

/** A stage of resenc-l at 160^3: channels, side of its map, images. */
export type Stage = readonly [channels: number, side: number];
export const STAGES: readonly Stage[] = [[32, 160], [64, 80], [128, 40], [256, 20], [320, 10], [320, 5]];

/** Time of one kernel. `visible`: share of the blocks that are there. */
export interface KernelRow {
  kernel: string;
  channels: number;
  side: number;
  visible: number;
  milliseconds: number;
  tflops: number;
  share_of_peak: number | null;
}

/** A grid of `cells`^3 blocks per sample of which every fourth is there, or of one block. */
function gridOf(samples: number, side: number, sparse: boolean): { grid: Grid; block: Side } {
  if (!sparse) return { grid: Grid.dense(samples), block: [side, side, side] };
  const cells = side % 10 === 0 ? 10 : 5;
  const visible = Uint8Array.from(
    { length: samples * cells ** 3 },
    (_, i) => i % 4 === Math.floor(i / 4) % 4 ? 1 : 0,
  );
  const block = side / cells;
  return { grid: new Grid(samples, [cells, cells, cells], visible), block: [block, block, block] };
}

/** Values of noise in bf16, the same rows again and again: multiplying constants takes less current, so the clock is higher. */
function noisy(layout: Layout, rows: number, channels: number, seed: number): Tensor {
  const drawn = 4099; // a prime: other rows meet in each tile
  using some = Tensor.from(noise(drawn * channels, seed), channels, undefined, "bf16");
  const index = Int32Array.from({ length: rows }, (_, i) => i % drawn);
  const handle = native().vx_gather_rows(some.handle, drawn, channels, index, index.length);
  return new Tensor(handle, rows, channels, layout);
}

/** Times the 3^3 convolution of each stage, dense and with a quarter of the blocks visible. */
export async function* kernels(
  begin: Begin,
  stages: readonly Stage[],
  samples: number,
  rounds: number,
  card: string,
): AsyncGenerator<KernelRow> {
  const n = native();
  const peak = peakOf(card);
  for (const [channels, side] of stages) {
    for (const sparse of [false, true]) {
      if (!begin(`${channels} channels at ${side}, ${sparse ? "a quarter" : "dense"}`)) continue;
      yield* await scope(async () => {
        const { grid, block } = gridOf(samples, side, sparse);
        const voxels = grid.blocks * block[0] ** 3;
        const layout = { grid, side: block };
        const [x, dy] = [1, 2].map((seed) => noisy(layout, voxels, channels, seed));
        const w = Tensor.from(noise(channels ** 2 * 27, 3), channels * 27);
        const shape = [grid.handle, ...block, channels, channels, 3, 1] as const;
        const calls: Record<string, () => number> = {
          forward: () => n.vx_conv3d(x.handle, w.handle, 0, ...shape, false),
          input: () => n.vx_conv3d_grad_input(dy.handle, w.handle, ...shape),
          weight: () => n.vx_conv3d_grad_weight(x.handle, dy.handle, ...shape),
        };
        const rows: KernelRow[] = [];
        // On Hopper the kernels of conv3d_stacked, conv3d_wide and conv3d_weight take turns with that of conv3d.
        const fits = channels > 64 ? channels % 64 === 0 : channels >= 32 && block[2] % 16 === 0;
        const more = n.vx_conv3d_stacked(false)
          ? [
            ...(fits ? ["forward, wgmma", "input, wgmma"] : []),
            ...(channels >= 32 && channels % 8 === 0 ? ["weight, wgmma"] : []),
          ]
          : [];
        const ways = ["forward", "input", "weight", ...more];
        for (const kernel of ways) {
          const call = calls[kernel.split(",")[0]];
          n.vx_conv3d_stacked(kernel.endsWith("wgmma"));
          const milliseconds = await timed(call, rounds);
          const flops = 2 * 27 * channels ** 2 * voxels / (milliseconds / 1000);
          const visible = voxels / (samples * side ** 3);
          const share = peak ? flops / peak : null;
          rows.push({
            kernel,
            channels,
            side,
            visible,
            milliseconds,
            tflops: flops / 1e12,
            share_of_peak: share,
          });
        }
        n.vx_conv3d_stacked(false);
        return rows;
      });
    }
  }
}

/** A training step of one method and network. */
export interface StepRow {
  method: string;
  arch: string;
  kind: string;
  patch: number;
  batch: number;
  seconds: number;
  losses: number[];
  /** Bytes of the card that were in use at most, and held with the pool. */
  peak_bytes: number;
  held_bytes: number;
  launches: number;
  /** Graphs that stood for some of these. */
  graphs: number;
  /** Times that the host waited, and that memory was asked of the driver. */
  waits: number;
  allocations: number;
  on_host: Record<string, number>;
}

/** Trains `steps` steps after `warm` that warm up; the median of their seconds. */
export async function step(
  arch: Architecture | string,
  name: string,
  patch: number,
  batch: number,
  steps: number,
  warm = 2,
): Promise<StepRow> {
  const network = typeof arch === "string" ? architecture(arch) : arch;
  const chosen = method(name);
  const cell = network.kind !== "token" && "cell" in chosen.options
    ? { cell: patch >= 64 ? 16 : patch / 4 }
    : {};
  const fixed = name === "s3d" ? { low: 0.75, high: 0.75 } : {};
  const options = fillOptions(name, chosen.options, network.kind ?? "cnn", { ...cell, ...fixed });
  native().vx_pool_empty();
  native().vx_peak_reset();
  using trainer = new Trainer(network, chosen, {
    method: name,
    arch: network.name,
    patch: [patch, patch, patch],
    batch,
    steps: 1000,
    seed: 0,
    lr: 1e-3,
    precision: "bf16",
    options,
    data: "",
  });
  if (onCard()) { // as the product does, before its first step
    const fixed = memory().bytes;
    holdRoom({ bytes: await trainer.plan(), fixed, batch, least: chosen.views });
  }
  const crops = batch * chosen.views;
  const images = noise(crops * patch ** 3, 4);
  const boxes = Array.from({ length: crops }, (_, i) => i < batch ? [0.15, 1] : [0, 0.85]);
  const overlap = Float32Array.from(
    chosen.views === 2 ? boxes.flatMap(([low, high]) => [low, low, low, high, high, high]) : [],
  );
  const ids = Array.from({ length: crops }, () => "noise");
  const data = { images, overlap, ids, ...(chosen.reversal ? { inputs: images } : {}) };
  const times: number[] = [];
  const losses: number[] = [];
  let report = deviceReport();
  for (let at = 0; at < steps + warm; at++) {
    deviceReport();
    const begin = performance.now();
    losses.push((await trainer.step(at, data))!.loss);
    if (at >= warm) times.push((performance.now() - begin) / 1000);
    report = deviceReport();
  }
  const seconds = times.sort((a, b) => a - b)[times.length >> 1];
  const { peak, held, launches, graphs, waits, allocations, on_host } = report;
  return {
    method: name,
    arch: network.name,
    kind: network.kind ?? "cnn",
    patch,
    batch,
    seconds,
    losses,
    peak_bytes: peak,
    held_bytes: held,
    launches,
    graphs,
    waits,
    allocations,
    on_host,
  };
}

/** Whole steps to time: method, network, patch, batch. */
export type Work = readonly [method: string, arch: Architecture | string, patch: number, batch: number];
export const STEPS: readonly Work[] = [
  ["s3d", "resenc-l", 160, 6],
  ["mae", "resenc-l", 160, 2],
  ["mae", "primus-m", 160, 2],
  ["s3d", "resenc-l", 128, 2],
  ["cva", "resenc-l", 128, 2],
  ["mae", "resenc-l", 128, 2],
];

const PLAIN: Way = { name: "plain", kind: "any", turn: () => 1 };

/** All work in all ways, in the order of its worth: plain, then each variant on the smallest work of each kind, then the rest. */
export function inOrder(list: readonly Work[]): { way: Way; work: Work }[] {
  const kindOf = ([, arch]: Work) => (typeof arch === "string" ? architecture(arch) : arch).kind ?? "cnn";
  const size = ([, , patch, batch]: Work) => batch * patch ** 3;
  const smallest = (work: Work) =>
    work === list.filter((w) => kindOf(w) === kindOf(work)).reduce((a, b) => size(b) < size(a) ? b : a);
  const rest = WAYS.flatMap((way) =>
    list.filter((work) => way.kind === "any" || way.kind === kindOf(work)).map((work) => ({ way, work }))
  );
  return [
    ...list.map((work) => ({ way: PLAIN, work })),
    ...rest.filter(({ work }) => smallest(work)),
    ...rest.filter(({ work }) => !smallest(work)),
  ];
}

/** `step` of each in every variant, `count` steps (3 at most where it is not plain); one that fails gives its error, and the next follows. */
export async function* steps(
  begin: Begin,
  list: readonly Work[],
  count: number,
): AsyncGenerator<StepRow | object> {
  for (const { way: { name: variant, turn }, work: [name, arch, patch, batch] } of inOrder(list)) {
    const network = typeof arch === "string" ? architecture(arch) : arch;
    if (!begin(`${name} on ${network.name} at ${patch}, ${variant}`)) continue;
    const timed = variant === "plain" ? count : Math.min(count, 3);
    try {
      if (turn(true)) yield { ...await step(network, name, patch, batch, timed), variant };
    } catch (error) {
      const about = { method: name, arch: network.name, kind: network.kind ?? "cnn", patch, batch, variant };
      yield { ...about, ok: false, failure: (error as Error).message };
    }
    turn(false);
  }
}
