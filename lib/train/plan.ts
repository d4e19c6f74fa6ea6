/** From a command line to a run: network, method, data and configuration, checked before anything is made. */
import { join } from "@std/path";
import { architecture } from "../arch/registry.ts";
import type { Arguments } from "../config.ts";
import type { Source } from "../data/loader.ts";
import { readPairs } from "../data/pairs.ts";
import { Store } from "../data/store.ts";
import type { Pair } from "../data/views.ts";
import { UsageError, UserError } from "../errors.ts";
import type { Method } from "../methods/method.ts";
import { method } from "../methods/registry.ts";
import type { Architecture } from "../nn/network.ts";
import { presets } from "./presets.ts";
import { blankStore, firstStore } from "./first_store.ts";
import type { RunConfig } from "./run_folder.ts";

/** Steps of the S3D paper. */
const STEPS = 250_000;

/** Everything that a run starts from. */
export interface Plan {
  arch: Architecture;
  method: Method;
  config: RunConfig;
  store: Source;
  pairs?: Pair[];
}

/** The pairs of --pairs, as many as the run needs: without --steps, as many as there are. */
async function listPairs(
  flags: Arguments["flags"],
  store: Source,
  patch: [number, number, number],
): Promise<Pair[]> {
  if (method(flags.method).views !== 2) {
    throw new UsageError(`--pairs: ${flags.method} takes single views; use --method cva`);
  }
  const stdin = flags.pairs === "-";
  const stream = stdin ? Deno.stdin.readable : (await Deno.open(flags.pairs)).readable;
  const needed = (flags.steps ?? STEPS) * flags.batch;
  const pairs: Pair[] = [];
  for await (const pair of readPairs(stream, stdin ? "standard input" : flags.pairs, store, patch)) {
    if (pairs.push(pair) >= needed) break;
  }
  const short = flags.steps !== undefined && pairs.length < needed;
  if (short || pairs.length < flags.batch) {
    throw new UserError(
      `--pairs ${flags.pairs}: ${pairs.length} pairs, ${
        short ? needed : flags.batch
      } are needed; give more or lower --steps`,
    );
  }
  return pairs;
}

/** Plans the run of `deno task pretrain`. @throws UsageError, UserError naming the argument and the fix */
export async function plan({ positionals: [given], flags }: Arguments): Promise<Plan> {
  const chosen = method(flags.method);
  const arch = architecture(flags.arch ?? (given ? "resenc-l" : "resenc-s"));
  if (flags.cell !== undefined && !("cell" in chosen.options)) {
    throw new UsageError(`--cell: ${chosen.name} has no mask cells`);
  }
  const side = flags.patch ?? (given ? 160 : 32);
  const store = flags.estimate && !given
    ? blankStore(side)
    : await Store.open(given ?? await firstStore(join("runs", "first-store")));
  const patch: [number, number, number] = [side, side, side];
  const pairs = flags.pairs === undefined ? undefined : await listPairs(flags, store, patch);
  const options = { ...chosen.options, ...(flags.cell === undefined ? {} : { cell: flags.cell }) };
  // A small patch has room for few cells: without --cell there are at least four per axis.
  if (flags.cell === undefined && options.cell > side / 4) options.cell = Math.max(1, Math.floor(side / 4));
  const config: RunConfig = {
    method: chosen.name,
    arch: arch.name,
    patch,
    batch: flags.batch,
    steps: flags.steps ?? (pairs ? Math.floor(pairs.length / flags.batch) : given ? STEPS : 100),
    seed: flags.seed,
    lr: flags.lr ?? presets[arch.preset ?? "cnn"].lr,
    options,
    data: await store.hash(),
  };
  return { arch, method: chosen, config, store, pairs };
}
