/** bf16 activations: methods and networks train like in f32, runs resume to the same bits, nothing leaks. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { primus } from "../../lib/arch/primus.ts";
import { resenc } from "../../lib/arch/resenc.ts";
import { UserError } from "../../lib/errors.ts";
import { methods } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import type { Precision } from "../../lib/nn/precision.ts";
import { memory, wait } from "../../lib/tensor.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { RunFolder } from "../../lib/train/run_folder.ts";
import { leakFree } from "../ops/wave.ts";
import { batch } from "../parity/batch.ts";
import { families, tiny, tinyRun } from "../parity/tiny.ts";

async function losses(trainer: Trainer, from: number, to: number): Promise<number[]> {
  const { patch, batch: images } = trainer.config;
  const out: number[] = [];
  for (let step = from; step < to; step++) {
    out.push((await trainer.step(step, batch(0, patch[0], images, trainer.method.views)))!.loss);
  }
  return out;
}

const mae = methods.find((m) => m.name === "mae")!;

for (const method of methods.filter((m) => ["mae", "s3d", "cva"].includes(m.name))) {
  const config = tinyRun(method, tiny, { precision: "bf16" });

  Deno.test(
    `bf16 ${method.name}: step 1 within 1 % of f32 (8 bits round by 0.2 %, through some ten layers), then the loss falls`,
    leakFree(async () => {
      using high = new Trainer(tiny, method, { ...config, precision: "f32" });
      using low = new Trainer(tiny, method, config);
      const [[want], seen] = [await losses(high, 0, 1), await losses(low, 0, 20)];
      assert(Math.abs(seen[0] - want) < 0.01 * Math.abs(want), `${seen[0]} against ${want}`);
      assert(seen.every(Number.isFinite) && seen[19] < seen[0], `losses ${seen}`);
      for (const tensor of low.parameters.tensors.values()) assertEquals(tensor.dtype, "f32");
    }),
  );

  Deno.test(
    `bf16 D13 ${method.name}: stop and resume gives the bits of an uninterrupted run, live bytes return to zero`,
    async () => {
      const folder = await Deno.makeTempDir();
      const path = join(folder, "run");
      {
        using whole = new Trainer(tiny, method, config);
        const uninterrupted = await losses(whole, 0, 4);
        const run = await RunFolder.open(path, config, false);
        using before = new Trainer(tiny, method, config);
        const early = await losses(before, 0, 2);
        await run.save(2, before.parameters, before.state());
        run.close();
        const next = await RunFolder.open(path, config, true);
        using after = new Trainer(tiny, method, config);
        await next.load(after.parameters, after.state());
        assertEquals([...early, ...await losses(after, 2, 4)], uninterrupted);
        next.close();
      }
      await Deno.remove(folder, { recursive: true });
      await wait();
      const { tensors, grids, bytes } = memory();
      assertEquals({ tensors, grids, bytes }, { tensors: 0, grids: 0, bytes: 0 });
    },
  );
}

for (const arch of families().filter((a) => a !== tiny)) {
  Deno.test(
    `bf16 ${arch.name}: the first loss of mae within 1 % of f32, then the loss falls`,
    leakFree(async () => {
      const config = tinyRun(mae, arch, { precision: "bf16" });
      using high = new Trainer(arch, mae, { ...config, precision: "f32" });
      using low = new Trainer(arch, mae, config);
      const [[want], seen] = [await losses(high, 0, 1), await losses(low, 0, 1)];
      assert(Math.abs(seen[0] - want) < 0.01 * Math.abs(want), `${seen[0]} against ${want}`);
      seen.push(...await losses(low, 1, 20));
      assert(seen.every(Number.isFinite) && seen[19] < seen[0], `losses ${seen}`);
    }),
  );
}

Deno.test(
  "bf16-exact: convolutions multiply in f32 while such a run lives, and by the rule again after it",
  leakFree(async () => {
    const mae = methods.find((m) => m.name === "mae")!;
    const arch = resenc("resenc 16", [16, 32], [1, 1], 16);
    const first = async (precision: Precision) => {
      using trainer = new Trainer(arch, mae, tinyRun(mae, arch, { precision }));
      return (await losses(trainer, 0, 1))[0];
    };
    const [f32, low, exact, again] = [
      await first("f32"),
      await first("bf16"),
      await first("bf16-exact"),
      await first("bf16"),
    ];
    assertEquals(again, low);
    for (const loss of [low, exact]) assert(Math.abs(loss - f32) < 0.01 * f32, `${loss} against ${f32}`);
    // Where the processor multiplies no bf16 pairs there is one way only.
    const pairs = native().vx_force_isa(0) === 4;
    assertEquals(exact !== low, pairs, `${exact} and ${low}`);
  }),
);

Deno.test(
  "tile registers (AMX, emulated): losses of bf16 runs as with vectors",
  leakFree(async () => {
    if (native().vx_force_isa(0) !== 4) return; // they come with the vectors that multiply bf16 pairs
    const mae = methods.find((m) => m.name === "mae")!;
    for (const arch of [resenc("resenc 32", [32, 64], [1, 1], 16), tokens]) {
      const three = async (level: number) => {
        native().vx_force_isa(level);
        using trainer = new Trainer(arch, mae, tinyRun(mae, arch, { precision: "bf16" }));
        return await losses(trainer, 0, 3);
      };
      try {
        const [vectors, tiles] = [await three(4), await three(6)];
        assert(
          tiles.every((loss, i) => Math.abs(loss - vectors[i]) < 0.01 * vectors[i]),
          `${tiles}, ${vectors}`,
        );
      } finally {
        native().vx_force_isa(0);
      }
    }
  }),
);

Deno.test("--precision is part of the run", async () => {
  const path = await Deno.makeTempDir();
  const { precision: _, ...old } = tinyRun(mae);
  const run = await RunFolder.open(path, old, false);
  using trainer = new Trainer(tiny, mae, old);
  await run.save(1, trainer.parameters, trainer.state());
  run.close();
  (await RunFolder.open(path, { ...old, precision: "f32" }, true)).close();
  try {
    await RunFolder.open(path, { ...old, precision: "bf16" }, true);
    throw new Error("no refusal");
  } catch (error) {
    assert(error instanceof UserError && error.message.includes("precision"), String(error));
  }
  await Deno.remove(path, { recursive: true });
});

const recomputed = methods.filter((m) => ["mae", "s3d", "cva"].includes(m.name)).map((m) =>
  [m, tiny] as const
);
const tokens = { ...primus("deep primus", 24, 6, 2), headWidth: 16 };
for (const [method, arch] of [...recomputed, [mae, tokens] as const]) {
  Deno.test(
    `recompute ${method.name}, ${arch.name}: the same first loss, nearly the same later ones`,
    leakFree(async () => {
      const config = tinyRun(method, arch, { patch: [32, 32, 32] });
      const run = async (recompute: boolean) => {
        await wait();
        native().vx_peak_reset();
        using trainer = new Trainer(arch, method, { ...config, recompute });
        const seen = await losses(trainer, 0, 4);
        return { seen, bytes: memory().peakBytes };
      };
      const [kept, again] = [await run(false), await run(true)];
      assertEquals(again.seen[0], kept.seen[0]);
      // Gradients of a skip are summed in another order.
      kept.seen.forEach((loss, i) =>
        assert(Math.abs(again.seen[i] - loss) < 1e-4 * Math.abs(loss), `step ${i}`)
      );
      assert(again.bytes < kept.bytes, `${again.bytes} against ${kept.bytes}`);
    }),
  );
}
