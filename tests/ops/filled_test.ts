/** Convolutions of volumes filled from blocks: gradients on the blocks against those of the same op on whole volumes. */
import { assertEquals } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { native } from "../../lib/native/library.ts";
import { cast } from "../../lib/ops/cast.ts";
import { conv3d } from "../../lib/ops/conv3d.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { densify } from "../../lib/ops/densify.ts";
import { type Dtype, Grid, scope, type Side, Tensor, volume } from "../../lib/tensor.ts";
import { close, differences, leakFree, wave } from "./wave.ts";

const SAMPLES = 2;
const DIMS: Side = [3, 2, 3];
const SIDE: Side = [4, 4, 4];
const [ABOVE, BLOCKS, OUT] = [16, 32, 16];

/** Which way the convolution is computed: by the rule, directly, by Winograd with f32 operands, the same in wide tiles. */
type Way = 0 | 1 | 2 | 5;

/** Gradients of a weighted sum of conv([above, densify(blocks, token)]), in this order. */
function gradients(way: Way, joined: boolean, tokened: boolean, dtype: Dtype): Promise<Float32Array[]> {
  native().vx_conv3d_algorithm(way);
  return scope(() => {
    const visible = Uint8Array.from({ length: SAMPLES * volume(DIMS) }, (_, i) => i * 7 % 5 === 0 ? 1 : 0);
    const grid = new Grid(SAMPLES, DIMS, visible);
    const dense = Grid.dense(SAMPLES);
    const whole = SIDE.map((s, i) => s * DIMS[i]) as unknown as Side;
    const rows = SAMPLES * volume(whole);
    const blocks = Tensor.from(wave(grid.blocks * volume(SIDE) * BLOCKS, 0.37, 1), BLOCKS, {
      grid,
      side: SIDE,
    }, dtype);
    const above = Tensor.from(wave(rows * ABOVE, 0.23, 2), ABOVE, { grid: dense, side: whole }, dtype);
    const token = Tensor.from(wave(BLOCKS, 1.3, 0, 0.5), BLOCKS);
    const cIn = BLOCKS + (joined ? ABOVE : 0);
    const weight = Tensor.from(wave(OUT * cIn * 27, 0.71, 3, 0.1), cIn * 27);
    const bias = Tensor.from(wave(OUT, 0.9, 4), OUT);
    const leaves = [blocks, weight, bias, ...(tokened ? [token] : []), ...(joined ? [above] : [])];
    if (way !== 1) {
      assertEquals(native().vx_conv3d_filled(blocks.handle, grid.handle, ...SIDE, BLOCKS, OUT), 1);
    }
    const op = (blocks: Tensor) => {
      const full = densify(blocks, tokened ? token : null, dense);
      return conv3d(joined ? [above, full] : full, weight, bias);
    };
    const { tape, result } = Tape.record(leaves, () => {
      const y = cast(op(blocks), "f32");
      return dot(y, Tensor.from(wave(y.length, 0.77, 0.2), OUT));
    });
    const all = tape.backward(result);
    const values = leaves.map((leaf) => all.get(leaf)!.read());
    if (way === 0 && dtype === "f32") differences(blocks, values[0], op);
    return values;
  }).finally(() => native().vx_conv3d_algorithm(0));
}

for (const joined of [false, true]) {
  for (const tokened of [false, true]) {
    const what = `${joined ? "joined with another" : "alone"}, ${tokened ? "a token" : "zeros"} in the holes`;
    Deno.test(
      `gradients of a filled convolution, ${what}`,
      leakFree(async () => {
        const direct = await gradients(1, joined, tokened, "f32");
        for (const way of [0, 5] as const) {
          (await gradients(way, joined, tokened, "f32")).forEach((g, i) => close(g, direct[i], 2e-5));
        }
        const rounded = await gradients(1, joined, tokened, "bf16");
        // Directly the weights are rounded to bf16 as well.
        (await gradients(2, joined, tokened, "bf16")).forEach((g, i) => close(g, rounded[i], 4e-2));
      }),
    );
  }
}
