/** Everything there is to see on a GPU, each result as it comes. See `deno task gpu-check --help`. */
import { dirname, fromFileUrl, join } from "@std/path";
import { type Arguments, type Command, type Grants, log, run, writeLine } from "../lib/config.ts";
import { deviceReport } from "../lib/device.ts";
import { UsageError, UserError } from "../lib/errors.ts";
import { fragments } from "../lib/gpu/fragments.ts";
import { loading } from "../lib/gpu/loading.ts";
import { parity } from "../lib/gpu/parity.ts";
import { LAYERS, products } from "../lib/gpu/products.ts";
import { sanitized } from "../lib/gpu/sanitizer.ts";
import { kernels, STAGES, STEPS, steps, type Work } from "../lib/gpu/speed.ts";
import { Stages } from "../lib/gpu/stages.ts";
import { markdown } from "../lib/gpu/table.ts";
import { firstTool } from "../lib/gpu/tools.ts";
import { ratios, requests, torch } from "../lib/gpu/torch.ts";
import { truth } from "../lib/gpu/truth.ts";
import { LIBRARY, native, openAt } from "../lib/native/library.ts";
import { resenc } from "../lib/arch/resenc.ts";

const ROOT = dirname(dirname(fromFileUrl(import.meta.url)));
const EMULATED = join(ROOT, "native", "target", "emulated", "libvoxalign.so");
const DOCS = join(ROOT, "docs", "gpu");

export const command: Command = {
  name: "gpu-check",
  summary:
    "Checks the GPU of this machine against the CPU and times it: JSON lines here, a page in docs/gpu.",
  positionals: [],
  flags: {
    out: { type: "string", short: "o", access: "write", help: "folder for the page (default docs/gpu)" },
    minutes: { type: "number", min: 0, default: 9, help: "start no further measurement after this long" },
    peer: {
      type: "string",
      default: "python3",
      help: "a Python with PyTorch for the same card; it may lack",
    },
    sanitizer: {
      type: "string",
      default: "compute-sanitizer",
      help: "NVIDIA's tool of that name; it may lack",
    },
    only: { type: "string", help: "these stages alone, with commas, and no page: fragments,parity" },
    emulate: { type: "boolean", help: "tiny shapes on the emulated card of deno task shim; no page" },
  },
};

/** The page, Python for PyTorch, the sanitizer where it is, and with --emulate the library of the emulated card. */
export async function extraGrants({ flags }: Arguments): Promise<Grants> {
  const write = flags.emulate || flags.only || flags.out ? [] : [DOCS];
  const sanitizer = await firstTool([flags.sanitizer]);
  const run = [flags.peer, ...(sanitizer ? [sanitizer] : [])];
  return { read: [], write, run, ffi: flags.emulate ? [EMULATED] : [] };
}

/** Stages in their order, and seconds of each. */
const SECONDS = {
  fragments: 15,
  parity: 60,
  truth: 50,
  sanitizer: 60,
  step: 110,
  kernel: 25,
  product: 10,
  loader: 40,
  torch: 170,
};

/** The stages that `--only` names. @throws UsageError for a name that is none */
function chosen(only?: string): string[] | undefined {
  const names = only?.split(",");
  const unknown = names?.find((name) => !(name in SECONDS));
  if (unknown !== undefined) {
    throw new UsageError(`--only names "${unknown}"; the stages are ${Object.keys(SECONDS).join(", ")}`);
  }
  return names;
}

async function main({ flags }: Arguments): Promise<number> {
  const { emulate, only, peer, sanitizer, out = DOCS } = flags;
  const wanted = chosen(only);
  const library = emulate ? EMULATED : LIBRARY;
  if (emulate) openAt(EMULATED);
  native().vx_device_use(true); // says why where there is no GPU that works
  const { card, memory } = deviceReport();
  const date = new Date().toISOString();
  const stem = join(out, `${date.slice(0, 10)}-${card.replaceAll(/\W+/g, "-")}`);
  const paged = !emulate && !only;
  if (paged) await Deno.mkdir(out, { recursive: true });
  using lines = paged
    ? await Deno.open(`${stem}.jsonl`, { write: true, create: true, truncate: true })
    : undefined;
  const stages = new Stages(card, flags.minutes * 60, wanted, (row) => {
    writeLine(row);
    lines?.writeSync(new TextEncoder().encode(JSON.stringify(row) + "\n"));
  });
  stages.note("card", { memory, cpu_threads: native().vx_cpu_threads(), date });

  const tiny = resenc("tiny resenc", [4, 8], [1, 1], 16);
  const rounds = emulate ? 1 : 10;
  const sizes = emulate ? [[8, 10], [33, 5]] as const : STAGES;
  const work = emulate ? ["s3d", "mae", "cva"].map((name): Work => [name, tiny, 8, 2]) : STEPS;
  const peers = (emulate ? [] : STEPS).map(([method, arch, patch, batch]) => ({
    ...{ work: "step", method, patch, batch, dtype: "bf16", ...(arch === "resenc-l" ? {} : { arch }) },
  }));
  const again = [
    "run",
    "--no-prompt",
    `--allow-read=${ROOT}`,
    `--allow-ffi=${library}`,
    fromFileUrl(import.meta.url),
    "--only=fragments,parity",
    ...(emulate ? ["--emulate"] : []),
  ];
  const results: Record<keyof typeof SECONDS, () => AsyncIterable<object>> = {
    fragments,
    parity: () => parity(),
    truth: () => emulate ? truth(1, ["s3d", "simmim"]) : truth(10),
    sanitizer: () => sanitized(sanitizer, [Deno.execPath(), ...again], SECONDS.sanitizer / 2),
    step: () => steps(work, emulate ? 1 : 5),
    kernel: () => kernels(sizes, 1, rounds, card),
    product: () => products(emulate ? [[40, 24, 17]] : LAYERS, rounds, card),
    loader: async function* () {
      if (emulate) return yield await loading(tiny, "s3d", 8, 2, 2, true);
      for (const later of [true, false]) {
        for (const name of ["s3d", "cva"]) yield await loading("resenc-l", name, 128, 2, 10, later);
      }
    },
    torch: () => torch(peer, emulate ? "cpu" : "cuda", requests(sizes, peers), () => stages.left),
  };
  for (const [name, body] of Object.entries(results)) {
    await stages.run(name, SECONDS[name as keyof typeof SECONDS], body);
  }
  for (const row of ratios(stages.rows)) stages.note("ratio", row);
  if (paged) {
    await Deno.writeTextFile(`${stem}.md`, markdown(stages.rows));
    log(`gpu-check: ${stem}.md`);
  }
  const { failed, rows, passed } = stages;
  writeLine({ card, results: rows.length, failed, minutes: +(passed / 60).toFixed(2) });
  if (failed) throw new UserError(`${failed} of the checks failed on ${card}; the lines above say which`);
  return 0;
}

if (import.meta.main) await run(command, main);
