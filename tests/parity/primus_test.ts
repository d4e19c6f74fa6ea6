/** Tiny Primus networks on a patch of three different sides: outputs and all gradients equal PyTorch's. */
import { assert, assertEquals } from "@std/assert";
import { primus } from "../../lib/arch/primus.ts";
import { Tape } from "../../lib/autograd.ts";
import type { BuildOptions } from "../../lib/nn/network.ts";
import { dot } from "../../lib/ops/cosine.ts";
import { add } from "../../lib/ops/elementwise.ts";
import { Rng } from "../../lib/rng.ts";
import { Grid, scope, Tensor, volume } from "../../lib/tensor.ts";
import { Filled } from "../arch/filled.ts";
import { leakFree, wave } from "../ops/wave.ts";
import { report } from "./report.ts";
import { fixture, sampledError } from "./sampled.ts";

const { tensors, metadata } = fixture("primus");
const PATCH = [16, 24, 32] as const;
const VISIBLE = Uint8Array.from(
  { length: 48 },
  (_, i) => Number(i < 24 ? i % 4 === 0 : [2, 3].includes(i % 8)),
);

/** Largest error of the stored values of `key`. */
const error = (key: string, values: Float32Array, floor = 0) =>
  sampledError(tensors.get(key)!.data, values, floor, 16);

interface Shape {
  inputs?: number;
  width?: number;
  depth?: number;
  masked?: boolean;
  draws?: boolean;
  build?: BuildOptions;
}

const cases: Record<string, Shape> = {
  segmentation: { inputs: 2 },
  drop: { masked: true, draws: true, build: { hidden: "drop" } },
  swap: { masked: true, build: { hidden: "swap" } },
  features: { width: 96, depth: 1, masked: true, build: { hidden: "drop", featureDecoder: true } },
};

for (const [name, shape] of Object.entries(cases)) {
  const { inputs = 1, width = 48, depth = 2, masked, draws, build } = shape;
  Deno.test(
    `primus ${name}: outputs and all gradients as PyTorch`,
    leakFree(() =>
      scope(() => {
        using parameters = new Filled(0);
        const arch = primus("tiny", width, depth, 2);
        const network = arch.build(parameters, inputs, 3, { patch: PATCH, ...build });
        for (const [key, tensor] of parameters.tensors) {
          if (key.endsWith(".0.bias")) tensor.write(tensor.read().map((v) => 10 * v));
        }
        const values = wave(2 * volume(PATCH) * inputs, 0.9, 0.4);
        const image = Tensor.from(values, inputs, { grid: Grid.dense(2), side: PATCH });
        const random = draws ? new Rng("drop") : undefined;
        const { tape, result } = Tape.record([image, ...parameters.tensors.values()], () => {
          const pyramid = network.encode(image, masked ? VISIBLE : undefined, random);
          const results = [...pyramid, network.decode(pyramid, random)];
          if (network.featureDecoder) results.push(network.featureDecoder(pyramid, random));
          const weighed = results.map((y) => dot(y, Tensor.from(wave(y.length, 0.77, 0.2), y.channels)));
          return { results, loss: weighed.reduce(add) };
        });
        const seen = result.results.map((y, i) => error(`${name}.output.${i}`, y.read()));
        const gradients = tape.backward(result.loss);
        const leaves = [["input", image] as const, ...parameters.tensors];
        const errors = leaves.map(([key, leaf]) =>
          error(`${name}.gradient.${key}`, gradients.get(leaf)!.read(), 1e-3)
        );
        assertEquals(
          leaves.length,
          [...tensors.keys()].filter((k) => k.startsWith(`${name}.gradient.`)).length,
        );
        const [output, gradient] = [Math.max(...seen), Math.max(...errors)];
        report({ network: `primus ${width}, ${name}`, torch: metadata.torch, output, gradient });
        assert(output < 1e-5, `output ${seen}`);
        const allowed = Math.max(1e-5, 2 * Number(metadata[name])); // what PyTorch loses in f32
        assert(gradient < allowed, `gradient of ${leaves[errors.indexOf(gradient)][0]}: ${gradient}`);
      })
    ),
  );
}
