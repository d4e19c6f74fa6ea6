/** NIfTI files -> volume store. See `deno task preprocess --help`. */
import { join } from "@std/path";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { UsageError, UserError } from "../lib/errors.ts";
import { findInputs } from "../lib/data/inputs.ts";
import { isListing, readListing } from "../lib/data/openmind.ts";
import { preprocess, shardOf } from "../lib/data/preprocess.ts";
import { readIndex, StoreWriter } from "../lib/data/store.ts";
import { type Recipe, RECIPES } from "../lib/data/volume.ts";
import { halvesOf, listedPaths } from "../lib/launch.ts";
import { storeReport } from "../lib/report/store.ts";
import { duration } from "../lib/train/progress.ts";
import { stopCode } from "../lib/train/stop.ts";

export const command: Command = {
  name: "preprocess",
  summary:
    "Turns NIfTI files into a store of prepared volumes. One JSON line per volume on stdout; resumable.",
  positionals: [{
    name: "IN",
    help:
      "NIfTI file, folder, nnU-Net raw dataset, pretrain_data.json or openneuro_metadata.csv, or - for paths",
    access: "read",
    variadic: true,
  }],
  flags: {
    out: { type: "string", help: "folder of the store", short: "o", access: "write" },
    recipe: {
      type: "string",
      help: "onemmiso (nnssl, S3D, OpenMind, CVA) or amaes (Yucca, FOMO)",
      default: "onemmiso",
      choices: RECIPES,
    },
    shard: { type: "string", help: "K/N: do only every N-th file, from the K-th on", default: "1/1" },
    strict: { type: "boolean", help: "exit 1 when a file was refused" },
  },
};

/** The halves of pairs that the command line names by the other half, and the files that a list names. */
export function extraGrants(args: Arguments): { read: string[]; write: string[] } {
  const listed = args.positionals.filter(isListing).flatMap((file) => {
    try {
      return readListing(file, Deno.readTextFileSync(file)).map(({ path }) => path);
    } catch {
      return []; // the script says what is wrong
    }
  });
  return { read: [...args.positionals, ...listed].flatMap((path) => halvesOf(path) as string[]), write: [] };
}

/** Arrays are written without a pause for signals, so that stopping here leaves none half done. */
function stopOnSignals(): void {
  for (const signal of Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      log("preprocess: stopped; the same command goes on where it was");
      Deno.exit(stopCode(signal));
    });
  }
}

async function main({ positionals, flags }: Arguments): Promise<number> {
  if (!flags.out) throw new UsageError("preprocess: -o STORE is missing (folder of the store); see --help");
  const named = positionals.filter((path) => path !== "-");
  const listed = named.length < positionals.length
    ? listedPaths(new Uint8Array(await new Response(Deno.stdin.readable).arrayBuffer()))
    : [];
  const inputs = shardOf(await findInputs(named, listed), flags.shard);
  const masked = inputs.filter((input) => input.masks).length;
  if (masked) {
    log(
      `${masked} images come with anonymisation or anatomy masks, which are not used: losses count defaced voxels too`,
    );
  }
  const writer = await StoreWriter.open(flags.out);

  stopOnSignals();
  const counts = { stored: 0, present: 0, refused: 0 };
  const places = new Map(inputs.map((input, i) => [input.path, i + 1]));
  const start = performance.now();
  let [told, skipped] = [start, 0];
  for await (const outcome of preprocess(writer, inputs, flags.recipe as Recipe)) {
    counts[outcome.status]++;
    writeLine(outcome);
    if (outcome.status === "refused") log(`preprocess: refused ${outcome.source}: ${outcome.reason}`);
    const now = performance.now();
    const done = places.get(outcome.source)!;
    if (outcome.status === "present") skipped = done;
    if (now - told < 2000 || done === skipped) continue;
    told = now;
    const left = (now - start) / 1000 / (done - skipped) * (inputs.length - done);
    log(`preprocess: ${done} of ${inputs.length} files, ${counts.refused} refused, ${duration(left)} left`);
  }
  if (flags.shard === "1/1") writer.compact();
  const report = join(flags.out, "report.html");
  Deno.writeTextFileSync(
    `${report}.${Deno.pid}.partial`,
    storeReport([...(await readIndex(flags.out)).values()]),
  );
  Deno.renameSync(`${report}.${Deno.pid}.partial`, report);
  log(
    `preprocess: ${counts.stored} stored, ${counts.present} present, ${counts.refused} refused in ${
      duration((performance.now() - start) / 1000)
    }; ${report} names refused files`,
  );
  if (counts.refused && flags.strict) {
    throw new UserError(
      `--strict: ${counts.refused} of ${inputs.length} files were refused; ${report} names them`,
    );
  }
  return 0;
}

if (import.meta.main) await run(command, main);
