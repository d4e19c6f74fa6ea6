/** No op of a network or a method computes on the host while a card is in use, in pretraining or in fine-tuning. */
import { assert, assertEquals } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { deviceReport } from "../../lib/device.ts";
import type { Method } from "../../lib/methods/method.ts";
import { method, methods, runsOn } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import type { Architecture } from "../../lib/nn/network.ts";
import { Parameters } from "../../lib/nn/parameters.ts";
import { linear } from "../../lib/ops/linear.ts";
import { Sgd } from "../../lib/ops/optimizer.ts";
import { globalAverage } from "../../lib/ops/pool.ts";
import { crossEntropy, diceCrossEntropy } from "../../lib/ops/segmentation.ts";
import { Grid, scope, Tensor, wait } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { noise } from "../../lib/gpu/parity.ts";
import { batch } from "../parity/batch.ts";
import { families, tinyRun } from "../parity/tiny.ts";
import { openEmulated } from "./library.ts";

const ignore = !openEmulated();

/** A step of pretraining: the loss, and what computed on the host. */
async function pretrained(chosen: Method, arch: Architecture, gpu: boolean) {
  native().vx_device_use(gpu);
  const config = tinyRun(chosen, arch, { precision: "bf16" });
  using trainer = new Trainer(arch, chosen, config);
  deviceReport();
  const data = batch(0, config.patch[0], config.batch, chosen.views);
  const { loss } = (await trainer.step(0, chosen.reversal ? { ...data, inputs: data.images } : data))!;
  return { loss, host: deviceReport().on_host };
}

/** A step of fine-tuning for three classes per voxel or image, two samples: the loss, and what computed on the host. */
async function finetuned(arch: Architecture, gpu: boolean, images: boolean) {
  native().vx_device_use(gpu);
  const side = Math.max(16, 2 * arch.stride);
  using parameters = new Parameters(5);
  const network = arch.build(parameters, 1, 3, { patch: [side, side, side] });
  const width = network.features.at(-1)!;
  const head = images ? parameters.affine("head", [3, width], width, 3) : undefined;
  using optimizer = new Sgd(parameters.tensors);
  deviceReport();
  const loss = await scope(async () => {
    const { tape, result } = Tape.record(parameters.tensors.values(), () => {
      const x = Tensor.from(noise(2 * side ** 3, 7), 1, { grid: Grid.dense(2), side: [side, side, side] });
      const labels = Uint8Array.from({ length: x.rows }, (_, i) => i * 7 % 5 % 3);
      const pyramid = network.encode(x);
      if (!head) return diceCrossEntropy(network.decode(pyramid), labels, { batchDice: false });
      return crossEntropy(
        linear(globalAverage(pyramid.at(-1)!), head.weight, head.bias),
        Float32Array.of(2, 0),
      );
    });
    optimizer.step(tape.backward(result, []), 0.01, 12);
    await wait();
    return result.read()[0];
  });
  return { loss, host: deviceReport().on_host };
}

/** Both devices find the same loss, and the card leaves nothing to the host. */
async function compare(title: string, run: (gpu: boolean) => ReturnType<typeof finetuned>) {
  const [want, got] = [await run(false), await run(true)];
  const error = Math.abs(got.loss - want.loss) / Math.abs(want.loss);
  assert(error < 0.02, `${title}: the loss is ${got.loss} on the card, ${want.loss} on the CPU`);
  assertEquals(got.host, {}, title);
}

/** On tokens every method, which takes seconds; else one per network, steps_test.ts has the others. */
function chosen(arch: Architecture): Method[] {
  const all = methods.filter((m) => !m.first && runsOn(m, arch));
  return arch.kind === "token" ? all : [all.find((m) => m.name === "amaes") ?? method("mae")];
}

for (const arch of families()) {
  Deno.test({
    name: `emulated card: ${
      chosen(arch).map((m) => m.name).join(", ")
    } and fine-tuning on ${arch.name} leave no op to the host`,
    ignore,
    async fn() {
      for (const method of chosen(arch)) {
        await compare(`${method.name} on ${arch.name}`, (gpu) => pretrained(method, arch, gpu));
      }
      await compare(`fine-tuning ${arch.name}`, (gpu) => finetuned(arch, gpu, false));
      await compare(`fine-tuning ${arch.name} on images`, (gpu) => finetuned(arch, gpu, true));
    },
  });
}
