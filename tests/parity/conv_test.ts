/** Convolutions, dense and on visible blocks: outputs and all gradients equal PyTorch's to 1e-5. */
import { assert } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { conv3d, upconv3d } from "../../lib/ops/conv3d.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { Grid, scope, type Side, Tensor, volume } from "../../lib/tensor.ts";
import { leakFree } from "../ops/wave.ts";
import { report } from "./report.ts";
import { fixture, sampledError } from "./sampled.ts";

const { tensors, metadata } = fixture("conv");
const HALF = Uint8Array.of(1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1);

/** c_in, c_out, side, kernel, stride, masked: as in fixtures/make_conv.py. */
const CASES: Record<string, [number, number, number, 1 | 2 | 3, 1 | 2, boolean]> = {
  "stem": [1, 16, 16, 3, 1, false],
  "odd channels": [3, 5, 6, 3, 1, false],
  "wide": [16, 24, 16, 3, 1, false],
  "deep": [64, 48, 4, 3, 1, false],
  "stride 2": [8, 16, 16, 3, 2, false],
  "point": [16, 8, 8, 1, 1, false],
  "masked": [16, 16, 16, 3, 1, true],
  "masked, stride 2": [8, 16, 16, 3, 2, true],
  "masked, blocks of 1": [8, 8, 2, 3, 1, true],
  "up": [16, 8, 8, 2, 2, false],
  "head": [16, 1, 16, 1, 1, false],
};

/** sin(a i^2 + b): values like noise, whose sums do not cancel as those of waves do. */
function chirp(length: number, a: number, b: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => Math.sin(a * i * i + b));
}

for (const [name, [cIn, cOut, whole, kernel, stride, masked]] of Object.entries(CASES)) {
  Deno.test(
    `convolution ${name}: output and gradients as PyTorch`,
    leakFree(() =>
      scope(() => {
        const grid = masked ? new Grid(2, [2, 2, 2], HALF) : Grid.dense(2);
        const s = masked ? whole / 2 : whole;
        const side: Side = [s, s, s];
        const x = Tensor.from(chirp(grid.blocks * volume(side) * cIn, 0.9, 0.3), cIn, { grid, side });
        const taps = kernel ** 3;
        const weight = Tensor.from(
          chirp(cIn * cOut * taps, 0.7, 0.1),
          kernel === 2 ? cOut * taps : cIn * taps,
        );
        const bias = Tensor.from(chirp(cOut, 1.3, 0.4), cOut);
        const { tape, result } = Tape.record([x, weight, bias], () => {
          const y = kernel === 2 ? upconv3d(x, weight, bias) : conv3d(x, weight, bias, stride);
          return { y, loss: dot(y, Tensor.from(chirp(y.length, 0.77, 0.2), cOut)) };
        });
        const output = sampledError(tensors.get(`${name}.output`)!.data, result.y.read());
        const gradients = tape.backward(result.loss);
        const errors = Object.entries({ x, weight, bias }).map(([key, leaf]) => {
          const error = sampledError(tensors.get(`${name}.${key}`)!.data, gradients.get(leaf)!.read());
          assert(error < 1e-5, `gradient of ${key}: ${error}`);
          return error;
        });
        const op = kernel === 2 ? "upconv3d" : masked ? "conv3d, masked" : "conv3d";
        report({ op, torch: metadata.torch, output, gradient: Math.max(...errors) });
        assert(output < 1e-5, `output: ${output}`);
      })
    ),
  );
}
