/** Every method of the registry: finite loss, falls on a fixed batch, same seed same bits, resume equals no stop. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { architecture } from "../../lib/arch/registry.ts";
import type { Batch } from "../../lib/data/loader.ts";
import { methods } from "../../lib/methods/registry.ts";
import { Rng } from "../../lib/rng.ts";
import { memory, wait } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { type RunConfig, RunFolder } from "../../lib/train/run_folder.ts";

const SIDE = 32;

function config(name: string, options: Record<string, number>): RunConfig {
  const fitted = "cell" in options ? { ...options, cell: 16 } : options;
  return {
    method: name,
    arch: "resenc-s",
    patch: [SIDE, SIDE, SIDE],
    batch: 2,
    steps: 12,
    seed: 3,
    lr: 0.01,
    options: fitted,
    data: "",
  };
}

/** Smooth random images; crop pairs overlap in opposite halves of axis z. */
function batch(views: 1 | 2, step: number): Batch {
  const n = 2 * views;
  const rng = new Rng("batch", step);
  const images = new Float32Array(n * SIDE ** 3);
  for (let s = 0; s < n; s++) {
    const [a, b, c, d] = [
      rng.uniform(0.1, 0.5),
      rng.uniform(0.1, 0.5),
      rng.uniform(0.1, 0.5),
      rng.uniform(0, 6),
    ];
    for (let i = 0; i < SIDE ** 3; i++) {
      images[s * SIDE ** 3 + i] = Math.sin(a * (i % SIDE) + d) + Math.cos(b * (Math.floor(i / SIDE) % SIDE)) +
        Math.sin(c * Math.floor(i / SIDE ** 2));
    }
  }
  const boxes = Array.from({ length: n }, (_, s) => s < 2 ? [0.5, 0, 0, 1, 1, 1] : [0, 0, 0, 0.5, 1, 1]);
  const overlap = new Float32Array(boxes.flat());
  return { images, overlap, ids: ["a", "b"] };
}

async function losses(trainer: Trainer, from: number, to: number, fixed: boolean): Promise<number[]> {
  const out: number[] = [];
  for (let step = from; step < to; step++) {
    const metric = await trainer.step(step, batch(trainer.method.views, fixed ? 0 : step));
    out.push(metric!.loss);
  }
  return out;
}

for (const method of methods) {
  Deno.test(`${method.name}: loss is finite and falls on a fixed batch; memory returns to zero`, async () => {
    const trainer = new Trainer(architecture("resenc-s"), method, config(method.name, method.options));
    const seen = await losses(trainer, 0, 8, true);
    assert(seen.every(Number.isFinite), `losses ${seen}`);
    assert(seen[7] < seen[0], `losses ${seen}`);
    trainer[Symbol.dispose]();
    await wait();
    assertEquals(memory().tensors, 0);
    assertEquals(memory().grids, 0);
    assertEquals(memory().bytes, 0);
  });

  Deno.test(`D13 ${method.name}: stop and resume gives the bits of an uninterrupted run`, async () => {
    const wanted = config(method.name, method.options);
    const whole = new Trainer(architecture("resenc-s"), method, wanted);
    const uninterrupted = await losses(whole, 0, 4, false);
    const folder = await Deno.makeTempDir();
    const path = join(folder, "run");
    try {
      const first = await RunFolder.open(path, wanted, false);
      const before = new Trainer(architecture("resenc-s"), method, wanted);
      const early = await losses(before, 0, 2, false);
      await first.save(2, before.parameters, before.state());
      first.close();
      before[Symbol.dispose]();
      const second = await RunFolder.open(path, wanted, true);
      assertEquals(second.step, 2);
      const after = new Trainer(architecture("resenc-s"), method, wanted);
      await second.load(after.parameters, after.state());
      const late = await losses(after, 2, 4, false);
      assertEquals([...early, ...late], uninterrupted);
      for (const [name, tensor] of after.parameters.tensors) {
        assertEquals(tensor.read(), whole.parameters.tensors.get(name)!.read(), name);
      }
      second.close();
      after[Symbol.dispose]();
    } finally {
      whole[Symbol.dispose]();
      await Deno.remove(folder, { recursive: true });
    }
  });
}
