/** Every op with kernels, outputs and gradients, on the GPU and on the CPU from the same values. */
import { Tape } from "../autograd.ts";
import { KIND_NAMES, kindOf } from "../data/augment.ts";
import { deviceReport } from "../device.ts";
import { native } from "../native/library.ts";
import { gelu, leakyRelu, silu, swiglu } from "../ops/activation.ts";
import { adaptivePool } from "../ops/adaptive_pool.ts";
import { attention } from "../ops/attention.ts";
import { cast } from "../ops/cast.ts";
import { concat, matrixRows } from "../ops/concat.ts";
import { conv3d, upconv3d } from "../ops/conv3d.ts";
import { cosineLoss, rollHalf } from "../ops/cosine.ts";
import { densify, gatherBlocks } from "../ops/densify.ts";
import { depthwise3d, depthwiseUp3d } from "../ops/depthwise.ts";
import { add, scale } from "../ops/elementwise.ts";
import { gatherRows, plan } from "../ops/gather.ts";
import { gramLoss } from "../ops/gram.ts";
import { CELL, lattice } from "../ops/lattice.ts";
import { layerNorm } from "../ops/layer_norm.ts";
import { layerScale } from "../ops/layer_scale.ts";
import { linear } from "../ops/linear.ts";
import { maxPool2 } from "../ops/maxpool.ts";
import { instanceNorm } from "../ops/norm.ts";
import { ntXent } from "../ops/ntxent.ts";
import { avgPool2, globalAverage } from "../ops/pool.ts";
import { reconstructionLoss } from "../ops/reconstruction.ts";
import { crossEntropy, diceCrossEntropy, softmax } from "../ops/segmentation.ts";
import { softmaxPool } from "../ops/softmax_pool.ts";
import { addPositions, patchify, rope } from "../ops/tokens.ts";
import { windowAttention } from "../ops/window_attention.ts";
import { type Dtype, Grid, type Layout, scope, type Side, Tensor, wait } from "../tensor.ts";
import type { Begin } from "./apart.ts";

/** Relative to the largest value: where products or stored values are bf16 on either side, and where all is f32. */
const ROUNDED = 0.02;
const EXACT = 2e-4;

/** An op on inputs made anew for each device; gradients are taken of the inputs. */
interface Case {
  name: string;
  tolerance: number;
  /** On wgmma (native/src/ops/conv3d_stacked), where the card has it. */
  stacked?: true;
  /** With norms applied where a convolution loads (native/src/ops/norm/later.rs). */
  onLoad?: true;
  /** By cuBLASLt, where it is found. */
  library?: true;
  make(): { inputs: Tensor[]; body: () => Tensor };
}

/** What one op gave. `error`: relative to the largest value of each tensor, the worst of output and gradients; or why not. */
export interface ParityRow {
  op: string;
  error: number | string;
  tolerance: number;
  ok: boolean;
  on_host: Record<string, number>;
}

/** Values in -1 .. 1 that look random and depend on `seed` alone. */
export function noise(length: number, seed: number): Float32Array {
  const values = new Float32Array(length);
  let state = (seed * 2654435761 + 12345) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = state / 2 ** 31 - 1;
  }
  return values;
}

export const matrix = (rows: number, channels: number, seed: number, dtype: Dtype = "f32") =>
  Tensor.from(noise(rows * channels, seed), channels, undefined, dtype);

export const volumeOf = (layout: Layout, channels: number, seed: number, dtype: Dtype) => {
  const rows = layout.grid.blocks * layout.side.reduce((a, b) => a * b);
  return Tensor.from(noise(rows * channels, seed), channels, layout, dtype);
};

/** Two samples of 2^3 blocks, a third of them hidden. */
export const masked = (): Grid => {
  const visible = Uint8Array.from({ length: 16 }, (_, i) => i % 3 === 1 ? 0 : 1);
  return new Grid(2, [2, 2, 2], visible);
};

/** Convolutions: block side of the output, channels, kernel, stride, on a masked grid. */
const CONVOLUTIONS: [Side, number, number, 1 | 3, 1 | 2][] = [
  [[4, 4, 8], 32, 32, 3, 1],
  [[3, 5, 7], 16, 64, 3, 1],
  [[1, 1, 1], 40, 33, 3, 1],
  [[2, 3, 5], 1, 5, 3, 1],
  [[4, 4, 4], 32, 32, 3, 2],
  [[5, 4, 6], 24, 17, 1, 1],
];

function cases(): Case[] {
  const list: Case[] = [];
  const special = (name: string, way: Partial<Case>, make: Case["make"]) =>
    list.push({ name, tolerance: ROUNDED, ...way, make });
  const both = (name: string, f32: number, make: (dtype: Dtype) => ReturnType<Case["make"]>) => {
    list.push({ name: `${name} bf16`, tolerance: ROUNDED, make: () => make("bf16") });
    list.push({ name: `${name} f32`, tolerance: f32, make: () => make("f32") });
  };
  for (const [side, cIn, cOut, kernel, stride] of CONVOLUTIONS) {
    const name = `conv3d ${kernel}^3 stride ${stride} ${side.join("x")} C${cIn} to ${cOut}`;
    both(name, ROUNDED, (dtype) => {
      const grid = masked();
      const from = side.map((s) => s * stride) as unknown as Side;
      const x = volumeOf({ grid, side: from }, cIn, 1, dtype);
      const [w, b] = [matrix(cOut, cIn * kernel ** 3, 2), matrix(1, cOut, 3)];
      return { inputs: [x, w, b], body: () => conv3d(x, w, b, stride) };
    });
  }
  both("conv3d 3^3 of C32 and C12 joined, to 20", ROUNDED, (dtype) => {
    const layout = { grid: masked(), side: [4, 2, 6] as const };
    const [a, b] = [volumeOf(layout, 32, 1, dtype), volumeOf(layout, 12, 4, dtype)];
    const [w, bias] = [matrix(20, 44 * 27, 2), matrix(1, 20, 3)];
    return { inputs: [a, b, w, bias], body: () => conv3d([a, b], w, bias) };
  });
  // Channels that one of the kernels on wgmma takes, for the outputs, the gradient of the input or that of the weight.
  const onWgmma: [Side, number, number][] = [
    [[2, 8, 16], 32, 32],
    [[2, 8, 16], 64, 32],
    [[4, 8, 8], 128, 66],
    [[3, 5, 7], 40, 72],
    [[1, 1, 1], 64, 64],
  ];
  for (const [side, cIn, cOut] of onWgmma) {
    special(
      `conv3d 3^3 stride 1 ${side.join("x")} C${cIn} to ${cOut} bf16 on wgmma`,
      { stacked: true },
      () => {
        const x = volumeOf({ grid: masked(), side }, cIn, 1, "bf16");
        const [w, b] = [matrix(cOut, cIn * 27, 2), matrix(1, cOut, 3)];
        return { inputs: [x, w, b], body: () => conv3d(x, w, b) };
      },
    );
  }
  both("upconv3d C48 to 20", ROUNDED, (dtype) => {
    const x = volumeOf({ grid: masked(), side: [2, 3, 2] }, 48, 1, dtype);
    const [w, b] = [matrix(48, 20 * 8, 2), matrix(1, 20, 3)];
    return { inputs: [x, w, b], body: () => upconv3d(x, w, b) };
  });
  both("linear 70 x 40 to 24", ROUNDED, (dtype) => {
    const [x, w, b] = [matrix(70, 40, 1, dtype), matrix(24, 40, 2), matrix(1, 24, 3)];
    return { inputs: [x, w, b], body: () => linear(x, w, b) };
  });
  special("linear 72 x 40 to 24 bf16 by cuBLASLt", { library: true }, () => {
    const [x, w, b] = [matrix(72, 40, 1, "bf16"), matrix(24, 40, 2), matrix(1, 24, 3)];
    return { inputs: [x, w, b], body: () => linear(x, w, b) };
  });
  special("instance norm and conv3d C40 to 24 bf16, norm on load", { onLoad: true }, () => {
    const x = volumeOf({ grid: masked(), side: [4, 4, 8] }, 40, 1, "bf16");
    const [gamma, beta, w] = [matrix(1, 40, 2), matrix(1, 40, 3), matrix(24, 40 * 27, 4)];
    const body = () => conv3d(instanceNorm(x, gamma, beta, { slope: 0.01 }), w, null);
    return { inputs: [x, gamma, beta, w], body };
  });
  both("instance norm with residual", EXACT, (dtype) => {
    const layout = { grid: masked(), side: [3, 4, 5] as const };
    const [x, residual] = [volumeOf(layout, 20, 1, dtype), volumeOf(layout, 20, 2, dtype)];
    const [gamma, beta] = [matrix(1, 20, 3), matrix(1, 20, 4)];
    return {
      inputs: [x, gamma, beta, residual],
      body: () => instanceNorm(x, gamma, beta, { residual, slope: 0.01 }),
    };
  });
  const simple = (name: string, op: (x: Tensor, other: Tensor) => Tensor, channels = 24) =>
    both(name, EXACT, (dtype) => {
      const layout = { grid: masked(), side: [2, 4, 2] as const };
      const [x, other] = [volumeOf(layout, channels, 1, dtype), volumeOf(layout, channels, 2, dtype)];
      return { inputs: [x, other], body: () => op(x, other) };
    });
  simple("leaky ReLU", (x) => leakyRelu(x));
  simple("SiLU", (x) => silu(x));
  simple("sum", add);
  simple("scale", (x) => scale(x, 0.3));
  simple("cast to bf16", (x) => cast(x, "bf16"));
  simple("cast to f32", (x) => cast(x, "f32"));
  simple("concat", concat, 13);
  simple("rows", (x) => matrixRows(x, 5, 40));
  simple("average pool", (x) => avgPool2(x));
  simple("global average", (x) => globalAverage(x));
  both("densify with token", EXACT, (dtype) => {
    const [x, token] = [volumeOf({ grid: masked(), side: [2, 3, 4] }, 12, 1, dtype), matrix(1, 12, 2)];
    return { inputs: [x, token], body: () => densify(x, token, Grid.dense(2)) };
  });
  both("gather blocks", EXACT, (dtype) => {
    const x = volumeOf({ grid: Grid.dense(2), side: [4, 6, 4] }, 12, 1, dtype);
    return { inputs: [x], body: () => gatherBlocks(x, masked(), [2, 3, 2]) };
  });
  both("adaptive pool", EXACT, (dtype) => {
    const x = volumeOf({ grid: Grid.dense(2), side: [6, 5, 8] }, 12, 1, dtype);
    return { inputs: [x], body: () => adaptivePool(x, [3, 3, 3]) };
  });
  simple("GELU", (x) => gelu(x));
  simple("SwiGLU", swiglu);
  simple("max pool", (x) => maxPool2(x));
  both("layer norm", EXACT, (dtype) => {
    const [x, gamma, beta] = [matrix(50, 72, 1, dtype), matrix(1, 72, 2), matrix(1, 72, 3)];
    return { inputs: [x, gamma, beta], body: () => layerNorm(x, gamma, beta) };
  });
  both("layer scale", EXACT, (dtype) => {
    const layout = { grid: masked(), side: [2, 1, 2] as const };
    const [x, branch] = [volumeOf(layout, 40, 1, dtype), volumeOf(layout, 40, 2, dtype)];
    const gamma = matrix(1, 40, 3);
    const keep = Float32Array.of(1.25, 0);
    return { inputs: [x, branch, gamma], body: () => layerScale(x, branch, gamma, keep) };
  });
  both("softmax pool", EXACT, (dtype) => {
    const layout = { grid: masked(), side: [2, 1, 3] as const };
    const [x, scores] = [volumeOf(layout, 40, 1, dtype), volumeOf(layout, 1, 2, "f32")];
    return { inputs: [x, scores], body: () => softmaxPool(x, scores) };
  });
  both("patchify", EXACT, (dtype) => {
    const x = volumeOf({ grid: Grid.dense(2), side: [4, 4, 4] }, 3, 1, dtype);
    return { inputs: [x], body: () => patchify(x, { grid: masked(), side: [1, 1, 1] }, 2) };
  });
  both("positions", EXACT, (dtype) => {
    const [x, table] = [volumeOf({ grid: masked(), side: [1, 1, 1] }, 24, 1, dtype), matrix(8, 24, 2)];
    return { inputs: [x, table], body: () => addPositions(x, table) };
  });
  both("rope", EXACT, (dtype) => {
    const x = volumeOf({ grid: masked(), side: [1, 2, 1] }, 36, 1, dtype);
    return { inputs: [x], body: () => rope(x, 2) };
  });
  for (const z of [2, 1]) {
    both(`attention, heads of 72, a query for ${2 / z} keys`, EXACT, (dtype) => {
      const rows = (z: number, seed: number) =>
        volumeOf({ grid: masked(), side: [z, 4, 2] }, 144, seed, dtype);
      const [q, k, v] = [rows(z, 1), rows(2, 2), rows(2, 3)];
      return { inputs: [q, k, v], body: () => attention(q, k, v, 2) };
    });
  }
  both("window attention", EXACT, (dtype) => {
    const [qkv, table] = [matrix(6 * 27, 3 * 48, 1, dtype), matrix(125, 3, 2)];
    const regions = Uint8Array.from({ length: 54 }, (_, i) => i * i % 5 >> 1);
    return { inputs: [qkv, table], body: () => windowAttention(qkv, table, 27, 3, regions) };
  });
  for (const stride of [1, 2] as const) {
    both(`depthwise stride ${stride}`, EXACT, (dtype) => {
      const x = volumeOf({ grid: masked(), side: [4, 2, 4] }, 24, 1, dtype);
      const [w, b] = [matrix(24, 27, 2), matrix(1, 24, 3)];
      return { inputs: [x, w, b], body: () => depthwise3d(x, w, b, stride) };
    });
  }
  both("depthwise up", EXACT, (dtype) => {
    const x = volumeOf({ grid: Grid.dense(2), side: [3, 2, 4] }, 24, 1, dtype);
    const [w, b] = [matrix(24, 27, 2), matrix(1, 24, 3)];
    return { inputs: [x, w, b], body: () => depthwiseUp3d(x, w, b) };
  });
  both("rows with gaps", EXACT, (dtype) => {
    const x = matrix(60, 7, 1, dtype);
    const index = Int32Array.from({ length: 70 }, (_, i) => i % 5 ? (i * 7 + 3) % 71 : -1)
      .map((i) => i < 60 ? i : -1);
    return { inputs: [x], body: () => gatherRows(x, plan(index, 60)) };
  });
  for (const inner of [false, true]) {
    both(`sub-lattices${inner ? ", inner" : ""}`, EXACT, (dtype) => {
      const x = volumeOf({ grid: masked(), side: [2, 4, 6] }, 5, 1, dtype);
      return { inputs: [x], body: () => lattice(x, inner ? CELL : [5, 0], inner) };
    });
  }
  for (const batchDice of [false, true]) {
    list.push({
      name: `Dice and cross entropy${batchDice ? " of the batch" : ""}`,
      tolerance: EXACT,
      make() {
        const logits = volumeOf({ grid: Grid.dense(2), side: [5, 6, 7] }, 4, 1, "f32");
        const labels = Uint8Array.from({ length: 420 }, (_, i) => i * 7 % 11 % 4);
        return { inputs: [logits], body: () => diceCrossEntropy(logits, labels, { batchDice }) };
      },
    });
  }
  list.push({
    name: "cross entropy of images",
    tolerance: EXACT,
    make() {
      const logits = matrix(7, 3, 1);
      const labels = Float32Array.from({ length: 7 }, (_, i) => i % 3);
      return { inputs: [logits], body: () => crossEntropy(logits, labels) };
    },
  });
  list.push({
    name: "softmax",
    tolerance: EXACT,
    make() {
      const x = matrix(50, 6, 1);
      return { inputs: [], body: () => softmax(x) };
    },
  });
  for (const kind of ["mse", "l1", "huber"] as const) {
    list.push({
      name: `reconstruction ${kind}`,
      tolerance: EXACT,
      make() {
        const [y, target] = [matrix(300, 2, 1), matrix(300, 2, 2)];
        const weight = Tensor.from(noise(300, 3).map((v) => v > 0 ? 1 : 0), 1);
        return { inputs: [y], body: () => reconstructionLoss(y, target, weight, kind) };
      },
    });
  }
  for (const way of ["turned", "bent", "linear"]) {
    list.push({
      name: `view, ${way}`,
      tolerance: EXACT,
      make() {
        const region = matrix(20 * 22 * 30, 1, 1);
        const bounds = Uint32Array.of(20, 22, 30, 3, 0, 1, 25, 22, 33, 12, 14, 18);
        const affine = Float64Array.of(0.9, 0.3, 0, 4, -0.3, 0.8, 0.1, 5, 0, -0.1, 1.2, 2.5);
        const elastic = Float64Array.from(way === "bent" ? [5, 60, 4e9] : []);
        const body = () => {
          const out = Tensor.full(0, 12 * 14 * 18, 1);
          const geometry = [bounds, 12, affine, 12, -2, way === "linear", elastic, elastic.length] as const;
          native().vx_view(out.handle, 0, region.handle, ...geometry);
          return out;
        };
        return { inputs: [], body };
      },
    });
  }
  for (const kind of KIND_NAMES) {
    list.push({
      name: `view, ${kind}`,
      tolerance: EXACT,
      make() {
        const image = matrix(12 * 14 * 18, 1, 1);
        const changes = Float64Array.of(kindOf(kind), ...(kind === "ringing" ? [9, 1] : [0.7, 1]), 2, 4e9);
        const body = () => {
          const out = image.clone();
          native().vx_view_change(out.handle, 0, 12, 14, 18, changes, changes.length, true);
          return out;
        };
        return { inputs: [], body };
      },
    });
  }
  const pair = (name: string, op: (p: Tensor, z: Tensor) => Tensor) =>
    list.push({
      name,
      tolerance: EXACT,
      make() {
        const [p, z] = [matrix(8, 40, 1), matrix(8, 40, 2)];
        return { inputs: [p], body: () => op(p, z) };
      },
    });
  pair("cosine loss", cosineLoss);
  pair("Gram loss", (p, z) => gramLoss(p, z, 4));
  pair("NT-Xent", (p, z) => ntXent(p, z).loss);
  pair("roll", (p) => rollHalf(p, 1));
  return list;
}

/** Output and gradients of one case on the device that is in use. */
export async function values(of: Pick<Case, "make">): Promise<Float32Array[]> {
  return await scope(async () => {
    const { inputs, body } = of.make();
    const { tape, result } = Tape.record(inputs, body);
    const start = Tensor.from(noise(result.length, 9), result.channels, result.layout, result.dtype);
    const gradients = tape.backward(result, undefined, start);
    await wait();
    return [result, ...inputs.flatMap((input) => gradients.get(input) ?? [])].map((t) => t.read());
  });
}

/** Largest difference relative to the largest value of each tensor; not a number is worse than any number. */
export function worst(want: Float32Array[], got: Float32Array[]): number {
  return Math.max(...want.map((tensor, t) => {
    const size = tensor.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-6);
    return tensor.reduce((most, v, i) => {
      const off = Math.abs(got[t][i] - v) / size;
      return Number.isNaN(off) ? Infinity : Math.max(most, off);
    }, 0);
  }));
}

/**
 * Runs all cases, those of libraries and of `wgmma` last; one row each, as they come. The GPU is in use at the end.
 * @param begin chooses the cases
 */
export async function* parity(begin: Begin): AsyncGenerator<ParityRow> {
  const later = (of: Case) => (of.onLoad ? 0.5 : 0) + (of.library ? 1 : 0) + (of.stacked ? 2 : 0);
  for (const of of cases().sort((a, b) => later(a) - later(b))) {
    const { name: op, tolerance } = of;
    if (!begin(op)) continue;
    try {
      native().vx_device_use(false);
      const want = await values(of);
      native().vx_device_use(true);
      if (!native().vx_conv3d_stacked(of.stacked ?? false) && of.stacked) continue;
      native().vx_norm_on_load(of.onLoad ?? false);
      if (!native().vx_device_products(of.library ?? false) && of.library) continue;
      deviceReport();
      const got = await values(of);
      const error = worst(want, got);
      yield { op, error, tolerance, ok: error <= tolerance, on_host: deviceReport().on_host };
    } catch (failure) {
      native().vx_device_use(true);
      yield { op, error: (failure as Error).message, tolerance, ok: false, on_host: {} };
    }
  }
}
