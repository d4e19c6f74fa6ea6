/** Weights of others in, ours out: .pth or .safetensors -> run folder, and back. */
import { architecture, architectures } from "../lib/arch/registry.ts";
import { type Arguments, type Command, log, run, writeLine } from "../lib/config.ts";
import { UsageError } from "../lib/errors.ts";
import { exportWeights } from "../lib/weights/export.ts";
import { importWeights } from "../lib/weights/import.ts";

export const command: Command = {
  name: "weights",
  summary:
    "Imports weights of nnssl (OpenMind), nnU-Net, LatentCampus or AMAES as a run folder; exports a run.",
  positionals: [
    { name: "import|export", help: "import FILE -o RUN, or export RUN -o FILE" },
    {
      name: "FILE|RUN",
      help: "a .pth or .safetensors file to import; the folder of a run or model to export",
      access: "read",
    },
  ],
  flags: {
    out: {
      type: "string",
      short: "o",
      access: "write",
      help: "the run folder to make; or the file to write, .pth or .safetensors",
    },
    arch: {
      type: "string",
      help: `${architectures.map((a) => a.name).join(", ")} (default: by names and shapes; the run's)`,
    },
    "token-order": {
      type: "string",
      choices: ["d0d1d2", "d1d0d2"],
      help:
        "how the file flattens its tokens: d1d0d2 in masked autoencoders of nnssl on Primus (defect D06), else d0d1d2 (default: as the file says)",
    },
  },
};

/** A path without slashes at its end. */
const trim = (path: string) => path.replace(/(?<=.)\/+$/, "");

/** The folder is made under another name first; `RUN/` has that name beside it, not within. */
export function extraGrants({ flags }: Arguments): { read: string[]; write: string[] } {
  const paths = flags.out?.endsWith("/") ? [`${trim(flags.out)}.partial`] : [];
  return { read: paths, write: paths };
}

/** At most `most` of `names`, for a log line. */
function some(names: string[], most = 5): string {
  return names.slice(0, most).join(", ") + (names.length > most ? `, and ${names.length - most} more` : "");
}

async function main({ positionals: [action, path], flags }: Arguments): Promise<void> {
  if (action !== "import" && action !== "export") {
    throw new UsageError(`weights: the first word is "${action}"; it must be import or export`);
  }
  if (!flags.out) {
    throw new UsageError(
      `weights: -o is missing; name the ${action === "import" ? "run folder" : "file"} to write`,
    );
  }
  const out = trim(flags.out);
  const tokenOrder = flags["token-order"];
  // What was begun takes seconds and is finished: an interrupt leaves nothing half written.
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => {});
  const arch = flags.arch === undefined ? undefined : architecture(flags.arch);
  if (action === "export") {
    const exported = await exportWeights(trim(path), out, { arch, tokenOrder });
    log(`${out}: ${exported.names} names of ${exported.tensors} tensors of ${exported.arch}`);
    return writeLine(exported);
  }
  const candidates = arch ? [arch] : architectures;
  const { missing, mismatched, ...found } = await importWeights(path, out, { candidates, tokenOrder });
  const { matched, total } = found.encoder;
  log(`${path}: ${found.arch}, ${found.matched} tensors matched, ${matched} of the ${total} of its encoder`);
  if (missing.length) log(`missing: ${some(missing)}`);
  for (const { name, file, network } of mismatched.slice(0, 5)) {
    log(`mismatched, left out: ${name} is [${file}] in the file, [${network}] in the network`);
  }
  if (found.extra) log(`kept beside the network: ${found.extra} tensors`);
  if (found.stale) {
    log(`${found.stale} units hold a stale copy under conv and norm (S3D); all_modules was taken`);
  }
  if (found.token_order === "d1d0d2") log("tokens were in order d1d0d2 (nnssl) and are now in d0d1d2");
  const names = mismatched.map(({ name }) => name);
  writeLine({
    ...found,
    missing: missing.length,
    mismatched: names.length,
    missing_names: missing,
    mismatched_names: names,
  });
}

if (import.meta.main) await run(command, main);
