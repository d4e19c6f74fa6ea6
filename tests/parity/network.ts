/** Small networks against fixtures made by the formula of tests/arch/filled.ts: outputs and all gradients. */
import { assert, assertEquals } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { add } from "../../lib/ops/elementwise.ts";
import type { Parameters } from "../../lib/nn/parameters.ts";
import { scope, type Side, Tensor } from "../../lib/tensor.ts";
import { Filled, formula, image } from "../arch/filled.ts";
import { leakFree, wave } from "../ops/wave.ts";
import { report } from "./report.ts";
import { type Fixture, sampledError } from "./sampled.ts";

/**
 * A test that builds and runs a network with the parameters and image of the fixture's case, and compares its outputs
 * and the gradients of every parameter and of the image.
 * @param run makes the network, then gives what runs it
 */
export function likeTorch(
  { tensors, metadata }: Fixture,
  name: string,
  side: Side,
  network: string,
  run: (parameters: Parameters, x: Tensor) => () => Tensor[],
  tolerance = 1e-5,
): void {
  Deno.test(
    `${network}: outputs and all gradients as PyTorch`,
    leakFree(() =>
      scope(() => {
        using parameters = new Filled(0);
        const x = image(side, (j) => formula(j, 3));
        const forward = run(parameters, x);
        const { tape, result } = Tape.record([...parameters.tensors.values(), x], () => {
          const outputs = forward();
          const weighed = outputs.map((y) => dot(y, Tensor.from(wave(y.length, 0.05, 0.2), y.channels)));
          return { outputs, loss: weighed.reduce(add) };
        });
        const stored = (key: string) => tensors.get(`${name}.${key}`)!.data;
        const output = Math.max(
          ...result.outputs.map((y, i) => sampledError(stored(`output.${i}`), y.read())),
        );
        const gradients = tape.backward(result.loss);
        const leaves = [...parameters.tensors, ["x", x] as const].filter(([key]) =>
          tensors.has(`${name}.gradient.${key}`)
        );
        assertEquals(leaves.length, gradients.size);
        // Before a norm, a bias and the weight of a 1x1x1 convolution of one channel have no gradient but rounding: that
        // of their layer's or block's other weight gives the scale.
        const largest = (key: string) => tensors.get(`${name}.gradient.${key}`)?.data[0] ?? 0;
        const errors = leaves.map(([key, leaf]) => {
          const floor = largest(
            key.replace(/bias$/, "weight").replace("encoder1.layer.conv3", "encoder1.layer.conv1"),
          );
          return sampledError(stored(`gradient.${key}`), gradients.get(leaf)!.read(), floor);
        });
        const gradient = Math.max(...errors);
        report({ network, torch: metadata.torch, output, gradient });
        assert(output < tolerance, `output: ${output}`);
        assert(gradient < tolerance, `gradient of ${leaves[errors.indexOf(gradient)][0]}: ${gradient}`);
      })
    ),
  );
}
