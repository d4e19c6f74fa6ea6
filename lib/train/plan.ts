/** From a command line to a run: network, method, data and configuration, checked before anything is made. */
import { join } from "@std/path";
import { architecture } from "../arch/registry.ts";
import { type Arguments, log } from "../config.ts";
import type { Source } from "../data/loader.ts";
import { readPairs } from "../data/pairs.ts";
import { Store } from "../data/store.ts";
import { type Pair, readPatch, tooSmall, type Triple } from "../data/views.ts";
import { explain, UsageError, UserError } from "../errors.ts";
import { pairDefects, readCompat } from "../methods/compat.ts";
import type { Method } from "../methods/method.ts";
import { fillOptions, type OptionValue, splitOption } from "../methods/options.ts";
import { checkPair, loadMethod } from "../methods/registry.ts";
import { type Architecture, checkPatch } from "../nn/network.ts";
import { presetOf, presets } from "./presets.ts";
import { blankStore, firstStore } from "./first_store.ts";
import { aboutRun } from "./transfer.ts";
import type { RunConfig } from "./run_folder.ts";

/** Steps of the S3D paper. */
const STEPS = 250_000;

/** Everything that a run starts from. */
export interface Plan {
  arch: Architecture;
  method: Method;
  config: RunConfig;
  store: Source;
  pairs?: AsyncIterable<Pair>;
  /** Of a method of two stages: what comes before. */
  first?: Plan;
}

/** The options of the method: named flags, then `--option`, over the paper's defaults. */
function readOptions(
  chosen: Method,
  { kind = "cnn" }: Architecture,
  flags: Arguments["flags"],
  patch: Triple,
): Record<string, OptionValue> {
  const given: Record<string, unknown> = Object.fromEntries(flags.option.map(splitOption));
  if (flags.cell !== undefined) {
    if (!("cell" in chosen.options)) throw new UsageError(`--cell: ${chosen.name} has no mask cells`);
    given.cell ??= flags.cell;
  }
  const options = fillOptions(chosen.name, chosen.options, kind, given);
  // A small patch has room for few cells: without --cell there are at least four per axis.
  const quarter = Math.max(1, Math.floor(Math.min(...patch) / 4));
  if (!("cell" in given) && typeof options.cell === "number") options.cell = Math.min(options.cell, quarter);
  return options;
}

/** Puts back what was read ahead. */
async function* chain<T>(head: T[], rest: AsyncIterator<T>): AsyncGenerator<T> {
  yield* head;
  for (;;) {
    const { value, done } = await rest.next();
    if (done) return;
    yield value;
  }
}

async function openList(name: string): Promise<Deno.FsFile> {
  try {
    const file = await Deno.open(name);
    if ((await file.stat()).isDirectory) {
      throw new UserError(`${name}: this is a folder; name the file of the pairs`);
    }
    return file;
  } catch (error) {
    throw new UserError(`--pairs ${explain(error).message}`);
  }
}

/**
 * The pairs of --pairs, checked line by line. A file is read whole, and without --steps it says how many there are; a
 * pipe is read as training goes on.
 */
async function openPairs(
  chosen: Method,
  { pairs: name, steps, batch }: Arguments["flags"],
  most: number,
  store: Source,
  patch: Triple,
): Promise<{ pairs: AsyncIterable<Pair>; count?: number; seed: number }> {
  if (chosen.views !== 2) {
    throw new UsageError(`--pairs: ${chosen.name} takes single views; use --method cva`);
  }
  const stdin = name === "-";
  const stream = stdin ? Deno.stdin.readable : (await openList(name)).readable;
  const source = readPairs(stream, stdin ? "standard input" : name, store, patch);
  const needed = stdin ? batch : (steps ?? most) * batch;
  const head: Pair[] = [];
  while (head.length < needed) {
    const { value, done } = await source.next();
    if (done) break;
    head.push(value);
  }
  const least = stdin || steps === undefined ? batch : needed;
  if (head.length < least) {
    throw new UserError(
      `--pairs ${name}: ${head.length} pairs, ${least} are needed; give more or lower --steps`,
    );
  }
  return { pairs: chain(head, source), count: stdin ? undefined : head.length, seed: head[0].seed };
}

/** What stage 1 of a method of two stages trains: the same network and data, `stage-1` steps for each of stage 2. */
function firstStage({ first, options: schema }: Method, plan: Plan, lr: number): Plan | undefined {
  if (!first) return;
  const { config, arch, store } = plan;
  const kind = arch.kind ?? "cnn";
  const shared = Object.entries(config.options).filter(([name]) =>
    name in first.method.options && name in schema && first.options[name] === undefined
  );
  const options = fillOptions(first.method.name, first.method.options, kind, {
    ...Object.fromEntries(shared),
    ...first.options,
  });
  const steps = Math.max(1, Math.round(config.steps * Number(config.options["stage-1"])));
  return {
    arch,
    store,
    method: first.method,
    config: { ...config, method: first.method.name, options, compat: [], steps, lr, pairs: undefined },
  };
}

/** Plans the run of `deno task pretrain`. @throws UsageError, UserError naming the argument and the fix */
export async function plan({ positionals: [given], flags }: Arguments): Promise<Plan> {
  const chosen = await loadMethod(flags.method);
  const known = flags.from === undefined ? undefined : await aboutRun(flags.from);
  const arch = architecture(flags.arch ?? known?.arch ?? (given ? "resenc-l" : "resenc-s"));
  checkPair(chosen, arch);
  const patch = readPatch(flags.patch ?? (given ? "160" : "32"));
  checkPatch(arch, patch);
  const recompute = flags.recompute === true;
  if (recompute && !arch.recomputes) {
    throw new UserError(
      `--recompute: ${arch.name} keeps all its activations; resenc-* and primus-* can do without`,
    );
  }
  const options = readOptions(chosen, arch, flags, patch);
  const compat = readCompat(flags.compat, chosen.name, chosen.compat);
  if (flags.pairs !== undefined && pairDefects(compat).length) {
    throw new UsageError(
      "--pairs: given pairs have their boxes; --compat nnssl-box, nnssl-pair-order and nnssl-pair-fallback draw them here",
    );
  }
  const store = flags.estimate && !given
    ? blankStore(Math.max(...patch))
    : await Store.open(given ?? await firstStore(join("runs", "first-store")));
  const usual = chosen.steps?.[arch.kind ?? "cnn"] ?? STEPS;
  const small = tooSmall(store.volumes, patch);
  if (small) log(`pretrain: ${small}`);
  const list = flags.pairs === undefined || flags.estimate // 20 steps need no list
    ? undefined
    : await openPairs(chosen, flags, usual, store, patch);
  const preset = presetOf(chosen, arch);
  const own = preset === presets.cnn ? chosen.lr : undefined;
  const config: RunConfig = {
    method: chosen.name,
    arch: arch.name,
    patch,
    batch: flags.batch,
    steps: flags.steps ?? (list?.count ? Math.floor(list.count / flags.batch) : given ? usual : 100),
    seed: flags.seed,
    lr: flags.lr ?? own ?? preset.lrs?.[arch.name] ?? preset.lr,
    precision: flags.precision,
    recompute,
    options,
    compat,
    recipe: store.recipe,
    ...(list && list.seed !== flags.seed && { pairs: list.seed }),
    data: await store.hash(),
  };
  const result: Plan = { arch, method: chosen, config, store, pairs: list?.pairs };
  return { ...result, first: firstStage(chosen, result, flags.lr ?? preset.lr) };
}
