/** The stages of `deno task gpu-check`, in the order of their worth. */
import { resenc } from "../arch/resenc.ts";
import { writeLine } from "../config.ts";
import { deviceReport } from "../device.ts";
import { native } from "../native/library.ts";
import { byVectors, tileRegisters } from "./amx.ts";
import { type Begin, breaks, BROKEN } from "./apart.ts";
import { fragments } from "./fragments.ts";
import { loading } from "./loading.ts";
import { parity } from "./parity.ts";
import { LAYERS, products } from "./products.ts";
import { kernels, STAGES, STEPS, steps, type Work } from "./speed.ts";
import { truth } from "./truth.ts";

/** Seconds of a stage, the start of its process in them, and of one of its cases: what takes longer hangs. */
export interface Check {
  seconds: number;
  quiet: number;
  /** Its rows, on the card in use. */
  body(begin: Begin): AsyncIterable<object>;
}

/** Stages that start programs of others, beside those of `checks`, with their seconds. They come last. */
export const OTHERS = { torch: 170, sanitizer: 60 };

const tiny = resenc("tiny resenc", [4, 8], [1, 1], 16);
/** Sizes of convolutions that are timed. */
export const sizesOf = (emulate: boolean) => emulate ? [[8, 10], [33, 5]] as const : STAGES;

async function* card(): AsyncGenerator<object> {
  const { card, memory } = deviceReport();
  yield await Promise.resolve({ card, memory, cpu_threads: native().vx_cpu_threads() });
}

async function* loaders(begin: Begin, emulate: boolean): AsyncGenerator<object> {
  if (emulate) return yield await loading(tiny, "s3d", 8, 2, 2, true);
  for (const later of [true, false]) {
    for (const name of ["s3d", "cva"]) {
      if (begin(`${name}, ${later ? "on the card" : "by the loader"}`)) {
        yield await loading("resenc-l", name, 128, 2, 10, later);
      }
    }
  }
}

/** Every op beside the CPU, and first the two ways of the CPU beside each other. */
async function* ops(begin: Begin, emulate: boolean): AsyncGenerator<object> {
  yield* tileRegisters(begin, emulate);
  byVectors();
  yield* parity(begin);
}

async function* truths(begin: Begin, emulate: boolean): AsyncGenerator<object> {
  byVectors();
  yield* emulate ? truth(begin, 1, ["s3d", "simmim"]) : truth(begin, 10);
}

/** @param emulate tiny shapes, for the emulated card */
export function checks(emulate: boolean): Record<string, Check> {
  const rounds = emulate ? 1 : 10;
  const work = emulate ? ["s3d", "mae", "cva"].map((name): Work => [name, tiny, 8, 2]) : STEPS;
  const name = () => deviceReport().card;
  const layers = emulate ? [[40, 24, 17]] as const : LAYERS;
  const slow = emulate ? 4 : 1;
  return {
    card: { seconds: 90, quiet: 90, body: card },
    fragments: { seconds: 30, quiet: 5, body: fragments },
    parity: { seconds: 60 * slow, quiet: 12, body: (begin) => ops(begin, emulate) },
    truth: {
      seconds: 50 * slow,
      quiet: 15 * slow,
      body: (begin) => truths(begin, emulate),
    },
    step: { seconds: 110 * slow, quiet: 35 * slow, body: (begin) => steps(begin, work, emulate ? 1 : 5) },
    kernel: { seconds: 25, quiet: 10, body: (begin) => kernels(begin, sizesOf(emulate), 1, rounds, name()) },
    product: { seconds: 10, quiet: 8, body: (begin) => products(begin, layers, rounds, name()) },
    loader: { seconds: 40, quiet: 30, body: (begin) => loaders(begin, emulate) },
  };
}

/** Runs stages in this process, for the one that started it: rows, and before each case its name. @returns the exit code */
export async function here(list: [string, Check][], from: number): Promise<number> {
  for (const [stage, { body }] of list) {
    let at = 0;
    const begin: Begin = (name) => {
      if (at++ < from) return false;
      writeLine({ begin: name, at: at - 1 });
      return true;
    };
    try {
      for await (const row of body(begin)) {
        writeLine({ stage, ...row });
        if (breaks(row)) return BROKEN;
      }
    } catch (error) {
      writeLine({ stage, ok: false, error: (error as Error).message });
      return BROKEN;
    }
  }
  return 0;
}
