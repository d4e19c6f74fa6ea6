/** Our ten optimiser steps against those of fixtures/make_truth.py (PyTorch, f64). */
import { primus } from "../../lib/arch/primus.ts";
import { resenc } from "../../lib/arch/resenc.ts";
import { unet } from "../../lib/arch/unet.ts";
import { fillOptions } from "../../lib/methods/options.ts";
import { method } from "../../lib/methods/registry.ts";
import type { Architecture } from "../../lib/nn/network.ts";
import { presetOf, presets } from "../../lib/train/presets.ts";
import { Trainer } from "../../lib/train/pretrain.ts";
import type { RunConfig } from "../../lib/train/run_folder.ts";
import { batch } from "./batch.ts";
import { fixture, sampledError } from "./sampled.ts";

const FOLDER = new URL("../../fixtures/truth/", import.meta.url);

/** Largest relative errors of one case. */
export interface Errors {
  torch: string;
  arch: string;
  /** Over the ten losses. */
  losses: number;
  /** Over the terms of the first step, before any update. */
  terms: number;
  /** Over all final weights, relative to the largest of their tensor (under Adam at least 0.1). */
  weights: number;
  /** The weight with the largest error. */
  worst: string;
}

/** Names of the cases. */
export function cases(): string[] {
  const files = [...Deno.readDirSync(FOLDER)].map((entry) => entry.name);
  return files.filter((f) => f.endsWith(".safetensors")).map((f) => f.replace(".safetensors", "")).sort();
}

type Tiny =
  | { features: number[]; blocks: number[]; headWidth: number }
  | { width: number; depth: number; heads: number; headWidth?: number }
  | { width: number };

function network(tiny: Tiny): Architecture {
  if ("features" in tiny) {
    return resenc(`resenc ${tiny.features.join("-")}`, tiny.features, tiny.blocks, tiny.headWidth);
  }
  if ("depth" in tiny) {
    const arch = primus(`primus ${tiny.width}`, tiny.width, tiny.depth, tiny.heads);
    return { ...arch, headWidth: tiny.headWidth ?? arch.headWidth };
  }
  return unet(`unet ${tiny.width}`, tiny.width);
}

/** Trains ten steps from the same initial weights, on the same batches and masks. */
export async function compare(name: string, precision: "f32" | "bf16" = "f32"): Promise<Errors> {
  const { tensors, metadata } = fixture(`truth/${name}`);
  const { arch: tiny, patch, ...rest } = JSON.parse(metadata.case);
  const arch = network(tiny);
  const chosen = method(rest.method);
  const options = fillOptions(chosen.name, chosen.options, arch.kind ?? "cnn", rest.options);
  const config: RunConfig = {
    ...rest,
    options,
    arch: arch.name,
    patch: [patch, patch, patch],
    data: "",
    precision,
  };
  using trainer = new Trainer(arch, chosen, config);
  const wanted = JSON.parse(metadata.terms) as Record<string, number>;
  const relative = (got: number, want: number) => Math.abs(got - want) / Math.abs(want);
  const errors: Errors = {
    torch: metadata.torch,
    arch: arch.name,
    losses: 0,
    terms: 0,
    weights: 0,
    worst: "",
  };
  for (let step = 0; step < config.steps; step++) {
    const data = batch(step, patch, config.batch, chosen.views);
    if (chosen.reversal) data.inputs = data.images.map((v) => 0.9 * v + 0.1);
    const metric = await trainer.step(step, data);
    errors.losses = Math.max(errors.losses, relative(metric!.loss, tensors.get("losses")!.data[step]));
    for (const [term, want] of step ? [] : Object.entries(wanted)) {
      errors.terms = Math.max(errors.terms, relative(metric![term], want));
    }
  }
  // The first updates of Adam are the signs of gradients, whatever their size: small weights carry rounding.
  const floor = presetOf(chosen, arch) === presets.cnn ? 0 : 0.1;
  const free: string[] = JSON.parse(metadata.free);
  const names = [...tensors.keys()].filter((key) => key !== "losses");
  if (names.length !== trainer.parameters.tensors.size) {
    throw new Error(`${names.length} weights in the fixture, ${trainer.parameters.tensors.size} here`);
  }
  for (const key of names.filter((name) => !free.includes(name))) {
    const values = trainer.parameters.tensors.get(key)!.read();
    const error = sampledError(tensors.get(key)!.data, values, floor);
    if (error > errors.weights) [errors.weights, errors.worst] = [error, key];
  }
  return errors;
}
