/** A tiny ResEnc, dense and on visible blocks: outputs and all gradients equal PyTorch's to 1e-5. */
import { assert, assertEquals } from "@std/assert";
import { resenc } from "../../lib/arch/resenc.ts";
import { Tape } from "../../lib/autograd.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { gatherBlocks } from "../../lib/ops/densify.ts";
import { add } from "../../lib/ops/elementwise.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { leakFree, wave } from "../ops/wave.ts";
import { batch } from "./batch.ts";
import { report } from "./report.ts";
import { fixture, sampledError } from "./sampled.ts";

const { tensors, metadata } = fixture("resenc");
const VISIBLE = Uint8Array.of(1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1);

for (const name of ["dense", "masked"]) {
  Deno.test(
    `resenc ${name}: outputs and all gradients as PyTorch`,
    leakFree(() =>
      scope(() => {
        using parameters = new Parameters(11);
        const network = resenc("tiny", [4, 8, 8], [1, 2, 1], 16).build(parameters, 1, 1);
        const image = Tensor.from(batch(0, 16, 2, 1).images, 1, { grid: Grid.dense(2), side: [16, 16, 16] });
        const { tape, result } = Tape.record(parameters.tensors.values(), () => {
          const outputs = name === "dense"
            ? [network.decode(network.encode(image))]
            : network.encode(gatherBlocks(image, new Grid(2, [2, 2, 2], VISIBLE), [8, 8, 8]));
          const weighed = outputs.map((y) => dot(y, Tensor.from(wave(y.length, 0.77, 0.2), y.channels)));
          return { outputs, loss: weighed.reduce(add) };
        });
        const stored = (key: string) => tensors.get(`${name}.${key}`)!.data;
        const outputs = result.outputs.map((y, i) => sampledError(stored(`output.${i}`), y.read()));
        const gradients = tape.backward(result.loss);
        const keys = [...parameters.tensors.keys()].filter((key) => tensors.has(`${name}.gradient.${key}`));
        assertEquals(keys.length, gradients.size);
        // Biases before a norm have no gradient but rounding: that of their layer's weight gives the scale.
        const largest = (key: string) => tensors.get(`${name}.gradient.${key}`)?.data[0] ?? 0;
        const errors = keys.map((key) => {
          const gradient = gradients.get(parameters.tensors.get(key)!)!.read();
          return sampledError(stored(`gradient.${key}`), gradient, largest(key.replace(/bias$/, "weight")));
        });
        const [output, gradient] = [Math.max(...outputs), Math.max(...errors)];
        report({ network: `resenc 4-8-8, ${name}`, torch: metadata.torch, output, gradient });
        assert(output < 1e-5, `output: ${output}`);
        assert(gradient < 1e-5, `gradient of ${keys[errors.indexOf(gradient)]}: ${gradient}`);
      })
    ),
  );
}
