/** Everything there is to see on a GPU, each result as it comes. See `deno task gpu-check --help`. */
import { dirname, fromFileUrl, join } from "@std/path";
import { type Arguments, type Command, type Grants, log, run, writeLine } from "../lib/config.ts";
import { deviceReport } from "../lib/device.ts";
import { UserError } from "../lib/errors.ts";
import { kernels, STAGES, step } from "../lib/gpu/speed.ts";
import { parity } from "../lib/gpu/parity.ts";
import { markdown, type Row } from "../lib/gpu/table.ts";
import { requests, torch } from "../lib/gpu/torch.ts";
import { truth } from "../lib/gpu/truth.ts";
import { native, openAt } from "../lib/native/library.ts";
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
    emulate: { type: "boolean", help: "tiny shapes on the emulated card of deno task shim; no page" },
  },
};

/** The page, Python for PyTorch, and with --emulate the library of the emulated card. */
export function extraGrants({ flags }: Arguments): Grants {
  const write = flags.emulate || flags.out ? [] : [DOCS];
  return { read: [], write, run: [flags.peer], ffi: flags.emulate ? [EMULATED] : [] };
}

/** Whole steps: method, network, patch, batch. */
const STEPS: [string, string, number, number][] = [
  ["s3d", "resenc-l", 160, 2],
  ["mae", "resenc-l", 160, 2],
  ["cva", "resenc-l", 128, 2],
  ["s3d", "resenc-l", 160, 6],
  ["mae", "resenc-l", 128, 4],
  ["mae", "primus-m", 160, 2],
];

async function main({ flags }: Arguments): Promise<number> {
  const begin = performance.now();
  const minutes = () => (performance.now() - begin) / 60_000;
  if (flags.emulate) openAt(EMULATED);
  native().vx_device_use(true); // says why where there is no GPU that works
  const { card, memory } = deviceReport();
  const rows: Row[] = [];
  const note = (stage: string, row: object) => {
    rows.push({ stage, card, ...row });
    writeLine(rows.at(-1));
  };
  note("card", { memory, cpu_threads: native().vx_cpu_threads(), date: new Date().toISOString() });

  let failed = 0;
  /** Runs a stage; what it throws is its result, and the next one goes on. */
  const stage = async (name: string, body: () => Promise<void>) => {
    if (minutes() > flags.minutes) return note(name, { skipped: `after ${flags.minutes} minutes` });
    try {
      await body();
    } catch (error) {
      failed++;
      note(name, { error: (error as Error).message });
    }
  };
  await stage("parity", async () => {
    for await (const row of parity()) {
      if (!row.ok) failed++;
      note("parity", row);
    }
  });
  await stage("truth", async () => {
    for await (const row of flags.emulate ? truth(1, ["s3d", "simmim"]) : truth(10)) {
      if (!row.ok) failed++;
      note("truth", row);
    }
  });
  const stages = flags.emulate ? [[8, 10], [33, 5]] as const : STAGES;
  await stage("kernel", async () => {
    for await (const row of kernels(stages, 1, flags.emulate ? 1 : 10, card)) {
      note("kernel", row);
    }
  });
  if (flags.emulate) {
    const tiny = resenc("tiny resenc", [4, 8], [1, 1], 16);
    for (const name of ["s3d", "mae", "cva"]) {
      await stage("step", async () => note("step", await step(tiny, name, 8, 2, 1)));
    }
  } else {
    for (const [name, arch, patch, batch] of STEPS) {
      await stage("step", async () => note("step", await step(arch, name, patch, batch, 5)));
    }
  }
  await stage("torch", async () => {
    const steps = flags.emulate ? [] : STEPS.slice(0, 3).map(([method, , patch, batch]) => ({
      work: "step",
      method,
      patch,
      batch,
      dtype: "bf16",
    }));
    const device = flags.emulate ? "cpu" : "cuda";
    for await (const row of torch(flags.peer, device, requests(stages, steps))) {
      note("torch", row);
      if (minutes() > flags.minutes) break;
    }
  });
  if (!flags.emulate) {
    const stem = join(
      flags.out ?? DOCS,
      `${new Date().toISOString().slice(0, 10)}-${card.replaceAll(/\W+/g, "-")}`,
    );
    await Deno.mkdir(flags.out ?? DOCS, { recursive: true });
    await Deno.writeTextFile(`${stem}.jsonl`, rows.map((row) => JSON.stringify(row) + "\n").join(""));
    await Deno.writeTextFile(`${stem}.md`, markdown(rows));
    log(`gpu-check: ${stem}.md`);
  }
  writeLine({ card, results: rows.length, failed, minutes: Number(minutes().toFixed(2)) });
  if (failed) throw new UserError(`${failed} of the checks failed on ${card}; the lines above say which`);
  return 0;
}

if (import.meta.main) await run(command, main);
