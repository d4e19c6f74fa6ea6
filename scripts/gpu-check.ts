/** Everything there is to see on a GPU, each result as it comes. See `deno task gpu-check --help`. */
import { dirname, fromFileUrl, join } from "@std/path";
import { type Arguments, type Command, type Grants, log, run, writeLine } from "../lib/config.ts";
import { deviceFlags } from "../lib/device.ts";
import { UsageError, UserError } from "../lib/errors.ts";
import { apart, first, spawn } from "../lib/gpu/apart.ts";
import { checks, here, OTHERS, sizesOf } from "../lib/gpu/check.ts";
import { useCard } from "../lib/gpu/kernels.ts";
import { sanitized } from "../lib/gpu/sanitizer.ts";
import { STEPS } from "../lib/gpu/speed.ts";
import { Stages } from "../lib/gpu/stages.ts";
import { markdown } from "../lib/gpu/table.ts";
import { firstTool } from "../lib/gpu/tools.ts";
import { MOST_IMAGES, ratios, requests, torch } from "../lib/gpu/torch.ts";
import { keepWays } from "../lib/gpu/ways.ts";
import { KERNELS, LIBRARY, openAt } from "../lib/native/library.ts";

const ROOT = dirname(dirname(fromFileUrl(import.meta.url)));
const EMULATED = join(ROOT, "native", "target", "emulated", "libvoxalign.so");
const DOCS = join(ROOT, "docs", "gpu");

export const command: Command = {
  name: "gpu-check",
  summary:
    "Checks the GPU of this machine against the CPU and times it: JSON lines here, a page in docs/gpu. Each stage runs in\n" +
    "processes of its own: one that hangs or breaks the GPU's context costs one case.",
  positionals: [],
  flags: {
    out: { type: "string", short: "o", access: "write", help: "folder for the page (default docs/gpu)" },
    minutes: { type: "number", min: 0, default: 9, help: "all ends after this long" },
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
    from: { type: "integer", min: 0, help: "run --only in this process, from this case on" },
    kernels: deviceFlags.kernels,
  },
};

/** The page, Deno for the stages, Python for PyTorch, the sanitizer where it is, with --emulate the emulated card. */
export async function extraGrants({ flags }: Arguments): Promise<Grants> {
  const write = flags.emulate || flags.only || flags.out ? [] : [DOCS];
  const sanitizer = await firstTool([flags.sanitizer]);
  const run = [Deno.execPath(), flags.peer, ...(sanitizer ? [sanitizer] : [])];
  return { read: [], write, run, ffi: flags.emulate ? [EMULATED] : [] };
}

/** The stages that `--only` names. @throws UsageError for a name that is none */
function chosen(names: string[], only?: string): string[] | undefined {
  const wanted = only?.split(",");
  const unknown = wanted?.find((name) => !names.includes(name));
  if (unknown === undefined) return wanted;
  throw new UsageError(`--only names "${unknown}"; the stages are ${names.join(", ")}`);
}

async function main({ flags }: Arguments): Promise<number> {
  const { emulate = false, only, peer, sanitizer, out = DOCS, from, kernels = KERNELS } = flags;
  const all = checks(emulate);
  const wanted = chosen([...Object.keys(all), ...Object.keys(OTHERS)], only);
  if (from !== undefined) {
    if (emulate) openAt(EMULATED);
    useCard(kernels); // says why where there is no GPU that works
    return await here(Object.entries(all).filter(([name]) => wanted?.includes(name)), from);
  }
  const grants = [
    "--config",
    join(ROOT, "deno.json"),
    `--allow-read=${ROOT},${kernels}`,
    `--allow-write=${kernels}`,
  ];
  const rest = [`--allow-ffi=${emulate ? EMULATED : LIBRARY}`, fromFileUrl(import.meta.url)];
  const line = [
    "run",
    "--no-prompt",
    ...grants,
    ...rest,
    `--kernels=${kernels}`,
    ...(emulate ? ["--emulate"] : []),
  ];
  const start = (stage: string) => (at: number) =>
    spawn(Deno.execPath(), [...line, `--only=${stage}`, `--from=${at}`]);
  const { card, ...about } = await first(apart(start("card"), all.card.quiet, () => all.card.seconds));
  const date = new Date().toISOString();
  const stem = join(out, `${date.slice(0, 10)}-${card.replaceAll(/\W+/g, "-")}`);
  const paged = !emulate && !only;
  if (paged) await Deno.mkdir(out, { recursive: true });
  using lines = paged
    ? await Deno.open(`${stem}.jsonl`, { write: true, create: true, truncate: true })
    : undefined;
  // The start of the first process, which opens the card, is in the time of all.
  const seconds = flags.minutes * 60 - performance.now() / 1000;
  const stages = new Stages(card, seconds, wanted, (row) => {
    writeLine(row);
    lines?.writeSync(new TextEncoder().encode(JSON.stringify(row) + "\n"));
  });
  stages.note("card", { ...about, date });

  const peers = (emulate ? [] : STEPS).map(([method, arch, patch, batch]) => ({
    ...{ work: "step", method, patch, batch: Math.min(batch, MOST_IMAGES), dtype: "bf16" },
    ...(arch === "resenc-l" ? {} : { arch }),
  }));
  const left = () => stages.left;
  for (const [name, { seconds, quiet }] of Object.entries(all).slice(1)) {
    await stages.run(name, seconds, () => apart(start(name), quiet, left));
  }
  // PyTorch has what the stages before left of their time.
  const time = Math.max(OTHERS.torch, stages.seconds - stages.passed - OTHERS.sanitizer);
  const device = emulate ? "cpu" : "cuda";
  await stages.run("torch", time, () => torch(peer, device, requests(sizesOf(emulate), peers), left));
  for (const row of ratios(stages.rows)) stages.note("ratio", row);
  const page = async () => {
    if (paged) await Deno.writeTextFile(`${stem}.md`, markdown(stages.rows));
  };
  await page(); // the last stage starts a tool that may not end in time
  const again = [Deno.execPath(), ...line, "--only=fragments,parity", "--from=0"];
  const half = OTHERS.sanitizer / 2;
  await stages.run("sanitizer", OTHERS.sanitizer, () => sanitized(sanitizer, again, half, left));
  await page();
  if (paged) {
    log(`gpu-check: ${stem}.md`);
    keepWays(kernels, card, stages.rows);
  }
  const { failed, rows, passed } = stages;
  writeLine({ card, results: rows.length, failed, minutes: +(passed / 60).toFixed(2) });
  if (failed) throw new UserError(`${failed} of the checks failed on ${card}; the lines above say which`);
  return 0;
}

if (import.meta.main) await run(command, main);
