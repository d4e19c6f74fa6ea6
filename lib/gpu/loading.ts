/** Whether the loader keeps up: views per second of it alone, and what a training step waits for it, with either way. */
import { architecture } from "../arch/registry.ts";
import { Loader, type Source } from "../data/loader.ts";
import { deviceReport } from "../device.ts";
import { fillOptions } from "../methods/options.ts";
import { method } from "../methods/registry.ts";
import type { Architecture } from "../nn/network.ts";
import { Trainer } from "../train/pretrain.ts";
import { noise } from "./parity.ts";

/**
 * `later`: views are made on the card with the step. `waiting_percent`: share of the steps that the training loop waits for
 * its next batch. `ahead_percent`: share of the views that came to the card while the step before computed.
 */
export interface LoadingRow {
  method: string;
  arch: string;
  patch: number;
  batch: number;
  later: boolean;
  views_per_second: number;
  seconds: number;
  waiting_percent: number;
  ahead_percent: number;
}

/** One volume of noise in memory, as long as a brain: reading it takes no time, sampling it does. */
function noisyStore(side: number): Source {
  const volume = { id: "noise", shape: [side, side, side] as [number, number, number] };
  const values = noise(side ** 3, 5);
  return { volumes: [volume], get: () => volume, read: () => Promise.resolve(values) };
}

/** Times `batches` of the loader alone, then as many steps that take theirs from it; `later`: views are made with the step. */
export async function loading(
  arch: Architecture | string,
  name: string,
  patch: number,
  batch: number,
  batches: number,
  later: boolean,
): Promise<LoadingRow> {
  const network = typeof arch === "string" ? architecture(arch) : arch;
  const chosen = method(name);
  const { views, reversal } = chosen;
  const sides = [patch, patch, patch] as [number, number, number];
  const store = noisyStore(Math.round(1.2 * patch));
  const open = () => new Loader({ store, patch: sides, batch, seed: 0, views, reversal, later });

  const alone = open();
  await alone.next();
  let began = performance.now();
  for (let i = 0; i < batches; i++) await alone.next();
  const views_per_second = batches * batch * views / (performance.now() - began) * 1000;
  await alone.close();

  const cell = "cell" in chosen.options && network.kind !== "token"
    ? { cell: patch >= 64 ? 16 : patch / 4 }
    : {};
  using trainer = new Trainer(network, chosen, {
    method: name,
    arch: network.name,
    patch: sides,
    batch,
    steps: 1000,
    seed: 0,
    lr: 1e-3,
    precision: "bf16",
    options: fillOptions(name, chosen.options, network.kind ?? "cnn", cell),
    data: "",
  });
  const source = open();
  for (let warm = 0; warm < 2; warm++) await trainer.step(warm, await source.next(), () => source.ahead());
  const before = source.waited;
  deviceReport();
  began = performance.now();
  for (let i = 0; i < batches; i++) await trainer.step(2 + i, await source.next(), () => source.ahead());
  const total = (performance.now() - began) / 1000;
  const waiting_percent = 100 * (source.waited - before) / total;
  const ahead_percent = 100 * deviceReport().ahead / (batches * batch * views);
  await source.close();
  return {
    method: name,
    arch: network.name,
    patch,
    batch,
    later,
    views_per_second,
    seconds: total / batches,
    waiting_percent,
    ahead_percent,
  };
}
