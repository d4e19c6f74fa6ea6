/** What the tests of ops share: reproducible values, closeness, gradients against goldens, no leaks. */
import { assert, assertEquals } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { native } from "../../lib/native/library.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { scale } from "../../lib/ops/elementwise.ts";
import { report } from "../parity/report.ts";
import { memory, Tensor } from "../../lib/tensor.ts";

/** factor * sin(a i + b), i = 0, 1, ...: the inputs of fixtures/make_ops_b.py. */
export function wave(length: number, a: number, b: number, factor = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => factor * Math.fround(Math.sin(a * i + b)));
}

/** Every value within `tolerance`, relative to the largest expected magnitude. Returns the largest error. */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-5): number {
  assertEquals(actual.length, expected.length);
  const size = Array.from(expected).reduce((m, v) => Math.max(m, Math.abs(v)), 1e-6);
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i] - expected[i]) / size;
    assert(error <= tolerance, `value ${i}: ${actual[i]} instead of ${expected[i]}, relative error ${error}`);
    largest = Math.max(largest, error);
  }
  return largest;
}

/** A test body after which no tensor, grid or byte more is alive than before. */
export function leakFree(body: () => unknown): () => Promise<void> {
  return async () => {
    native().vx_queue_sync();
    const { tensors, grids, bytes } = memory();
    await body();
    native().vx_queue_sync();
    const after = memory();
    assertEquals({ tensors: after.tensors, grids: after.grids, bytes: after.bytes }, {
      tensors,
      grids,
      bytes,
    });
  };
}

export interface Golden {
  y: number[];
  grads: number[][];
}

/** The goldens of fixtures/make_ops_b.py by name. */
export const goldens: Record<string, Golden> & { torch: string } = JSON.parse(
  Deno.readTextFileSync(new URL("../../fixtures/ops_b.json", import.meta.url)),
);

/** Output and gradient of `op` at `x` as in the golden `name`, then the gradient against central differences. */
export function judge(name: string, x: Tensor, op: (x: Tensor) => Tensor, step = 1e-2): void {
  const golden = goldens[name];
  const { tape, result } = Tape.record([x], () => {
    const y = op(x);
    return { y, loss: weigh(y) };
  });
  const output = close(result.y.read(), golden.y);
  const gradient = tape.backward(result.loss).get(x)!.read();
  report({ op: name, torch: goldens.torch, output, gradient: close(gradient, golden.grads[0]) });
  differences(x, gradient, op, step);
}

/** Along five directions, the gradient agrees with central differences of the op (weighed as in the goldens). */
export function differences(x: Tensor, gradient: Float32Array, op: (x: Tensor) => Tensor, step = 1e-2): void {
  const values = x.read();
  const loss = (direction: Float32Array, by: number) => {
    using moved = Tensor.from(values.map((v, i) => v + by * direction[i]), x.channels, x.layout);
    const y = op(moved).read();
    return y.reduce((s, v, i) => s + v * weightOf(y.length, i), 0);
  };
  for (let k = 0; k < 5; k++) {
    const direction = wave(values.length, 0.31 + 0.2 * k, k);
    const numeric = (loss(direction, step) - loss(direction, -step)) / (2 * step);
    const exact = gradient.reduce((s, v, i) => s + v * direction[i], 0);
    const scale = gradient.reduce((s, v, i) => s + Math.abs(v * direction[i]), 1e-3);
    assert(Math.abs(numeric - exact) < 5e-3 * scale, `direction ${k}: ${numeric} by differences, ${exact}`);
  }
}

function weightOf(length: number, i: number): number {
  return length === 1 ? 1 : Math.fround(Math.sin(0.77 * i + 0.2));
}

/** sum of y weighted as `weightOf`, on the tape. */
function weigh(y: Tensor): Tensor {
  return y.length === 1 ? scale(y, 1) : dot(y, Tensor.from(wave(y.length, 0.77, 0.2), y.channels));
}

/** `[n][c][voxels]` as `[n][voxels][c]`. */
export function channelsLast(x: Float32Array, n: number, c: number, voxels: number): Float32Array {
  const out = new Float32Array(x.length);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < c; k++) {
      for (let v = 0; v < voxels; v++) out[(i * voxels + v) * c + k] = x[(i * c + k) * voxels + v];
    }
  }
  return out;
}
