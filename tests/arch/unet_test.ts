import { assert, assertEquals, assertThrows } from "@std/assert";
import { unet, unetB, unetXl } from "../../lib/arch/unet.ts";
import { record, Tape } from "../../lib/autograd.ts";
import { decode } from "../../lib/data/safetensors.ts";
import { UserError } from "../../lib/errors.ts";
import { mae } from "../../lib/methods/mae.ts";
import { fillOptions } from "../../lib/methods/options.ts";
import { checkPatch } from "../../lib/nn/network.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { Grid, scope, type Side, Tensor, volume } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { maxPool2 } from "../../lib/ops/maxpool.ts";
import { assertEmpty } from "../ops/golden.ts";
import { report } from "../parity/report.ts";

const file = new URL("../../fixtures/unet.safetensors", import.meta.url);
const { tensors, metadata } = decode(Deno.readFileSync(file), "unet.safetensors");

/** Value j of the formula of architectures.md 11. */
const formula = (j: number, h: number) => ((7919 * j + 104729 * h) % 1000003) / 1000003 - 0.5;

/** Parameters that keep shapes only. */
class Shapes extends Parameters {
  override add(name: string, shape: number[]): Tensor {
    this.shapes.set(name, shape);
    return undefined as unknown as Tensor;
  }
  size(prefix = ""): number {
    return [...this.shapes].reduce(
      (n, [name, shape]) => n + (name.startsWith(prefix) ? shape.reduce((a, b) => a * b, 1) : 0),
      0,
    );
  }
}

/** Parameters with the values of architectures.md 11. */
class Filled extends Parameters {
  override add(name: string, shape: number[]): Tensor {
    const h = [...name].reduce((sum, c) => sum + c.charCodeAt(0), 0) % 97;
    const inner = shape.slice(1).reduce((a, b) => a * b, 1);
    const [scale, offset] = shape.length > 1
      ? [Math.sqrt(24 / inner), 0]
      : [0.2, name.endsWith("weight") ? 1 : 0];
    const data = new Float32Array(shape[0] * inner);
    for (let j = 0; j < data.length; j++) data[j] = offset + scale * formula(j, h);
    const tensor = Tensor.from(data, shape.length > 1 ? inner : data.length);
    this.tensors.set(name, tensor);
    this.shapes.set(name, shape);
    return tensor;
  }
}

function image(side: Side, value: (j: number) => number): Tensor {
  const data = Float32Array.from({ length: volume(side) }, (_, j) => value(j));
  return Tensor.from(data, 1, { grid: Grid.dense(1), side });
}

Deno.test("unet-b and unet-xl have the published counts, names and shapes", async () => {
  for (
    const [arch, light, keys, size, encoder, signature] of [
      [unetB, true, 66, 17_879_617, 14_134_944, "8e88e6a070babe08"],
      [unetB, false, 82, 22_581_217, 14_134_944, "70ee8c00d17803c5"],
      [unetXl, true, 66, 71_500_929, 56_526_144, "0d1f15dd7ce5d23b"],
      [unetXl, false, 82, 90_304_449, 56_526_144, "f74474a9d8687a2c"],
    ] as const
  ) {
    const shapes = new Shapes(0);
    arch.build(shapes, 1, 1, { light });
    assertEquals([shapes.shapes.size, shapes.size(), shapes.size("encoder.")], [keys, size, encoder]);
    const lines = [...shapes.shapes].map(([name, shape]) => `${name}|${shape}\n`).sort().join("");
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines)));
    assertEquals([...hash.subarray(0, 8)].map((b) => b.toString(16).padStart(2, "0")).join(""), signature);
  }
});

for (
  const [light, expected] of [
    [true, [-0.72294198, 0.35239654, -0.63711227, -0.91149082, -0.66909136]],
    [false, [-3.5020099, 1.7044558, -1.6176542, -3.3739004, -1.5051691]],
  ] as const
) {
  Deno.test(`unet-b ${light ? "light" : "standard"}: the documented forward at 32^3`, async () => {
    await scope(() => {
      using parameters = new Filled(0);
      const network = unetB.build(parameters, 1, 1, { light });
      const y = network.decode(network.encode(image([32, 32, 32], (j) => formula(j, 17 / 104729)))).read();
      const mean = y.reduce((a, b) => a + b) / y.length;
      const std = Math.sqrt(y.reduce((s, v) => s + (v - mean) ** 2, 0) / y.length);
      [mean, std, y[0], y[12345], y.at(-1)!].forEach((v, i) => {
        assert(Math.abs(v - expected[i]) <= 1e-3 * std, `value ${i}: ${v} against ${expected[i]}`);
      });
    });
    assertEmpty();
  });
}

for (const name of ["light", "standard"] as const) {
  Deno.test(`unet ${name} at 32x48x16: output and every gradient are those of PyTorch`, async () => {
    await scope(() => {
      using parameters = new Filled(0);
      const network = unet("tiny", 2).build(parameters, 1, 2, { light: name === "light" });
      const x = image([32, 48, 16], (j) => formula(j, 3));
      const { tape, result } = Tape.record([...parameters.tensors.values(), x], () => {
        const y = network.decode(network.encode(x));
        const dy = Float32Array.from({ length: y.length }, (_, i) => Math.cos(i / 7));
        const loss = record(Tensor.full(0, 1, 1), [y], () => [Tensor.from(dy, y.channels, y.layout)]);
        return { y, loss };
      });
      const y = result.y.read();
      const expected = tensors.get(`${name}.y`)!.data;
      let output = 0;
      for (let z = 0, at = 0; z < 32; z += 4) {
        for (let v = 0; v < 48; v += 4) {
          for (let u = 0; u < 16; u += 4) {
            for (let c = 0; c < 2; c++, at++) {
              const got = y[((z * 48 + v) * 16 + u) * 2 + c];
              output = Math.max(output, Math.abs(got - expected[at]) / 2);
              assert(output <= 1e-5, `y[${at}]: ${got} against ${expected[at]}`);
            }
          }
        }
      }
      const gradients = tape.backward(result.loss);
      // Against these f64 gradients PyTorch itself is off by up to 9.6e-5 in f32.
      let worst = 0;
      for (const [key, tensor] of [...parameters.tensors, ["x", x] as const]) {
        const got = gradients.get(tensor)!.read();
        const want = tensors.get(`${name}.${key}`)!.data;
        const step = Math.ceil(got.length / 100);
        const length = want[want.length - 1];
        // The gradient of a bias before a norm is what is left of a sum that cancels: judged by that of its weight.
        const whole = key.endsWith(".bias") && !key.endsWith("norm.bias")
          ? key.replace(".bias", ".weight")
          : key;
        const scale = tensors.get(`${name}.${whole}`)!.data.at(-1)!;
        const norm = Math.hypot(...got);
        worst = Math.max(worst, Math.abs(norm - length) / scale);
        for (let i = 0; i * step < got.length; i++) {
          worst = Math.max(worst, Math.abs(got[i * step] - want[i]) / scale);
        }
        assert(worst <= 5e-5, `gradient of ${key}: ${worst}`);
      }
      report({ network: `unet 2, ${name}`, torch: metadata.torch, output, gradient: worst });
    });
    assertEmpty();
  });
}

Deno.test("maxPool2: values and gradient are those of PyTorch, equal values included", async () => {
  await scope(() => {
    const { data, shape: [n, z, y, x, c] } = tensors.get("pool.x")!;
    const input = Tensor.from(data, c, { grid: Grid.dense(n), side: [z, y, x] });
    const { tape, result } = Tape.record([input], () => {
      const out = maxPool2(input);
      const dy = tensors.get("pool.dy")!.data;
      return { out, loss: record(Tensor.full(0, 1, 1), [out], () => [Tensor.from(dy, c, out.layout)]) };
    });
    assertEquals(result.out.read(), tensors.get("pool.y")!.data);
    assertEquals(tape.backward(result.loss).get(input)!.read(), tensors.get("pool.dx")!.data);
    const odd = Tensor.full(0, 3, 1, { grid: Grid.dense(1), side: [1, 1, 3] });
    assertThrows(() => maxPool2(odd), Error, "odd");
  });
  assertEmpty();
});

Deno.test("unet: a patch that the strides do not divide is refused with the nearest that they do", () => {
  const config = {
    method: "mae",
    arch: "unet-b",
    patch: [32, 40, 32] as [number, number, number],
    batch: 1,
    steps: 1,
    seed: 0,
    lr: 0.1,
    options: fillOptions("mae", mae.options, "cnn", {}),
    data: "",
  };
  assertThrows(() => new Trainer(unetB, mae, config), UserError, "32x32x32 or 32x48x32");
  checkPatch(unetB, [32, 32, 16]);
  // One voxel is left at the deepest level, which is normalised.
  assertThrows(() => checkPatch(unetB, [16, 16, 16]), UserError, "try 32x32x32");
});
