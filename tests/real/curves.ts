/**
 * Training curves on real volumes beside PyTorch, from the same weights, crops and masks:
 *
 *     deno run --allow-read --allow-write --allow-ffi tests/real/curves.ts STORE FOLDER [STEPS]    ours, and the crops
 *     python3 fixtures/curves.py FOLDER                                                          PyTorch in f32
 *     deno run --allow-read --allow-write tests/real/curves.ts FOLDER                              figure and table
 */
import { join } from "@std/path";
import { architecture } from "../../lib/arch/registry.ts";
import { Loader } from "../../lib/data/loader.ts";
import { Store } from "../../lib/data/store.ts";
import { log, writeLine } from "../../lib/config.ts";
import { fillOptions } from "../../lib/methods/options.ts";
import { method } from "../../lib/methods/registry.ts";
import { svg } from "../../lib/report/figure.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import { wait } from "../../lib/tensor.ts";

const SEEDS = [0, 1];
const METHODS = ["mae", "s3d"];
const [SIDE, BATCH, WINDOW] = [32, 2, 25];

/** One line of FOLDER/*.jsonl. */
interface Curve {
  side: string;
  method: string;
  seed: number;
  losses: number[];
  rates: number[];
}

async function train(store: Store, folder: string, steps: number): Promise<void> {
  const [arch, patch] = [architecture("resenc-s"), [SIDE, SIDE, SIDE] as [number, number, number]];
  const data = await store.hash();
  const lines: string[] = [];
  for (const seed of SEEDS) {
    const loader = new Loader({ store, patch, batch: BATCH, seed, views: 1 });
    const batches = [];
    for (let step = 0; step < steps; step++) batches.push(await loader.next());
    await loader.close();
    const file = await Deno.create(join(folder, `crops-${seed}.f32`));
    for (const { images } of batches) await file.write(new Uint8Array(images.buffer));
    file.close();
    for (const name of METHODS) {
      const chosen = method(name);
      const options = fillOptions(name, chosen.options, "cnn", { cell: 8 });
      for (const precision of ["f32", "bf16"] as const) {
        const shape = { method: name, arch: arch.name, patch, batch: BATCH, steps, seed, lr: 1e-2 };
        using trainer = new Trainer(arch, chosen, { ...shape, precision, options, data });
        const curve: Curve = { side: `ours ${precision}`, method: name, seed, losses: [], rates: [] };
        for (const [step, batch] of batches.entries()) {
          const metric = await trainer.step(step, batch);
          curve.losses.push(metric!.loss);
          curve.rates.push(metric!.lr);
        }
        log(`${curve.side}, ${name}, seed ${seed}: ${curve.losses.at(-1)}`);
        lines.push(JSON.stringify(curve));
      }
      await wait();
    }
  }
  await Deno.writeTextFile(join(folder, "ours.jsonl"), lines.join("\n") + "\n");
}

/** Means of 25 steps. */
const windows = ({ losses }: Curve) =>
  Array.from({ length: Math.floor(losses.length / WINDOW) }, (_, i) => {
    const part = losses.slice(i * WINDOW, (i + 1) * WINDOW);
    return part.reduce((a, b) => a + b) / part.length;
  });

async function draw(folder: string): Promise<void> {
  const read = async (name: string) =>
    (await Deno.readTextFile(join(folder, name))).trim().split("\n").map((line) => JSON.parse(line) as Curve);
  const curves = [...await read("ours.jsonl"), ...await read("torch.jsonl")];
  const { lineY, ruleY, text } = await import("@observablehq/plot");
  const points = curves.flatMap((c) =>
    windows(c).map((loss, i) => ({
      ...c,
      loss,
      step: (i + 1) * WINDOW,
    }))
  );
  const colour: Record<string, string> = { torch: "#bbbbbb", "ours f32": "#d95f02", "ours bf16": "#1b6e57" };
  const ends = Object.keys(colour).map((side, i) => ({ side, step: 230, loss: 1.1 - 0.06 * i }));
  await Deno.writeTextFile(
    join(folder, "curves.svg"),
    svg({
      width: 720,
      height: 320,
      marginLeft: 48,
      x: { label: "step" },
      y: { label: `loss, mean of ${WINDOW} steps`, grid: true },
      fx: { label: null, domain: METHODS },
      marks: [
        ruleY([]),
        ...Object.keys(colour).flatMap((side) =>
          SEEDS.map((seed) =>
            lineY(points.filter((p) => p.side === side && p.seed === seed), {
              x: "step",
              y: "loss",
              fx: "method",
              stroke: colour[side],
              strokeWidth: side === "torch" ? 5 : 1.5,
              strokeDasharray: seed ? "5 3" : undefined,
            })
          )
        ),
        text(ends, {
          x: "step",
          y: "loss",
          text: "side",
          fill: (d: { side: string }) => colour[d.side],
          fx: () => METHODS[0],
        }),
      ],
    }),
  );
  const find = (side: string, name: string, seed: number) =>
    windows(curves.find((c) => c.side === side && c.method === name && c.seed === seed)!);
  const apart = (a: number[], b: number[]) => Math.max(...a.map((v, i) => Math.abs(v - b[i])));
  for (const name of METHODS) {
    const spread = apart(find("torch", name, 0), find("torch", name, 1));
    for (const side of ["ours f32", "ours bf16"]) {
      const same = SEEDS.map((seed) => apart(find(side, name, seed), find("torch", name, seed)));
      const last = [side, "torch"].map((s) =>
        SEEDS.map((seed) => Number(find(s, name, seed).at(-1)!.toFixed(4)))
      );
      writeLine({
        method: name,
        side,
        same_seed: same,
        between_seeds: spread,
        last_ours: last[0],
        last_torch: last[1],
      });
    }
  }
}

if (import.meta.main) {
  const [first, folder, steps = "300"] = Deno.args;
  if (folder === undefined) await draw(first);
  else await train(await Store.open(first), folder, Number(steps));
}
