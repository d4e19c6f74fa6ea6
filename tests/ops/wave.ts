/** What the tests of ops share: reproducible values, closeness, gradients against goldens, no leaks. */
import { assert, assertEquals } from "@std/assert";
import { native } from "../../lib/native/library.ts";
import { memory } from "../../lib/tensor.ts";

/** factor * sin(a i + b), i = 0, 1, ...: the inputs of fixtures/make_ops_b.py. */
export function wave(length: number, a: number, b: number, factor = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => factor * Math.fround(Math.sin(a * i + b)));
}

/** Every value within `tolerance`, relative to the largest expected magnitude. */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-5): void {
  assertEquals(actual.length, expected.length);
  const size = Array.from(expected).reduce((m, v) => Math.max(m, Math.abs(v)), 1e-6);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i] - expected[i]) / size;
    assert(error <= tolerance, `value ${i}: ${actual[i]} instead of ${expected[i]}, relative error ${error}`);
  }
}

/** A test body after which no tensor, grid or byte more is alive than before. */
export function leakFree(body: () => void | Promise<void>): () => Promise<void> {
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
