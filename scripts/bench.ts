/** Times the parts of voxalign, and the same work in PyTorch and SciPy beside it. See `deno task bench --help`. */
import { join } from "@std/path";
import {
  augmentations,
  convolutions,
  distances,
  loaders,
  preparations,
  rankings,
  steps,
} from "../lib/bench/cases.ts";
import { type Case, measure, peaks } from "../lib/bench/measure.ts";
import { Peer } from "../lib/bench/peer.ts";
import { type BenchRow, markdown } from "../lib/bench/table.ts";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { oneOf, UsageError } from "../lib/errors.ts";
import { native } from "../lib/native/library.ts";
import { writeWhole } from "../lib/files.ts";

const GROUPS = ["op", "step", "loader", "preprocess", "augment", "nsd", "rank"];

export const command: Command = {
  name: "bench",
  summary:
    "Times operations, training steps, loading, preparation and ranking; one JSON line each, and a Markdown table.",
  positionals: [],
  flags: {
    out: {
      type: "string",
      short: "o",
      access: "write",
      default: "bench",
      help: "folder for bench.md, bench.jsonl",
    },
    only: { type: "string", help: `groups, joined by commas: ${GROUPS.join(", ")} (default: all)` },
    peer: {
      type: "string",
      help: "a python3 with torch, scipy, nibabel: the same work there, in turn with ours",
    },
    arch: { type: "string", default: "resenc-l", help: "networks of the steps, joined by commas" },
    methods: { type: "string", default: "s3d,mae,cva", help: "methods of the steps, joined by commas" },
    patch: { type: "integer", min: 32, default: 96, help: "side of the crops of the steps" },
    batch: { type: "integer", min: 1, default: 1, help: "images per step (methods on pairs: at least 2)" },
    threads: { type: "integer", min: 1, help: "threads of ours and of the peer (default: all cores)" },
    precision: { type: "string", default: "f32", choices: ["f32", "bf16"], help: "of activations" },
    rounds: { type: "integer", min: 1, default: 5, help: "calls per case; the median counts" },
    machine: { type: "string", default: "", help: "the machine in words, for the head of the table" },
  },
};

/** The peer is a program of the user's choice: only it may be started. */
export function extraGrants(args: Arguments): { read: string[]; write: string[]; run: string[] } {
  return { read: [args.flags.out], write: [], run: args.flags.peer ? [args.flags.peer] : [] };
}

async function main({ flags }: Arguments): Promise<void> {
  const only: string[] = flags.only?.split(",") ?? GROUPS;
  for (const group of only) {
    if (!GROUPS.includes(group)) {
      throw new UsageError(`--only names "${group}"; ${oneOf(group, GROUPS)}`);
    }
  }
  const folder = join(flags.out, `work-${Deno.pid}`);
  const threads: number = flags.threads ?? navigator.hardwareConcurrency;
  native().vx_threads(threads);
  const group: Record<string, () => Case[]> = {
    op: () => convolutions(flags.precision),
    step: () =>
      steps(flags.arch.split(","), flags.methods.split(","), {
        patch: flags.patch,
        batch: flags.batch,
        dtype: flags.precision,
      }),
    loader: loaders,
    preprocess: () => preparations(folder),
    augment: augmentations,
    nsd: distances,
    rank: rankings,
  };
  const cases = only.flatMap((name) => group[name]());
  if (!cases.length) {
    throw new UsageError(`no method of --methods ${flags.methods} runs on --arch ${flags.arch}; name others`);
  }
  let versions = {};
  if (flags.peer) {
    await using peer = new Peer(flags.peer, threads);
    versions = (await peer.ask({ work: "versions" })).versions ?? {};
  }
  const head = {
    machine: flags.machine,
    threads,
    deno: Deno.version.deno,
    precision: flags.precision,
    peer: versions,
  };
  writeLine(head);
  const rows: BenchRow[] = [];
  await Deno.mkdir(folder, { recursive: true });
  try {
    for (const of of cases) {
      const peak = await peaks();
      const row = {
        ...await measure(of, flags.rounds, peak, flags.peer ? { python: flags.peer, threads } : undefined),
        peak_gflops: peak[flags.precision as "f32" | "bf16"] / 1e9,
      };
      rows.push(row);
      writeLine(row);
      log(
        `bench: ${row.name}: ${row.seconds.toPrecision(3)} s${
          row.ratio ? `, ${row.ratio.toFixed(2)}x the peer` : ""
        }`,
      );
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
    if (rows.length) {
      const lines = [head, ...rows].map((r) => JSON.stringify(r) + "\n");
      await writeWhole(join(flags.out, "bench.jsonl"), lines.join(""));
      await writeWhole(join(flags.out, "bench.md"), markdown(head, rows));
    }
  }
  log(`bench: ${join(flags.out, "bench.md")} holds the table`);
}

if (import.meta.main) await run(command, main);
