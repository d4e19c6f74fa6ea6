/** What runs on the GPU of this machine. See `deno task gpu-check --help`. */
import { type Command, run } from "../lib/config.ts";
import { UserError } from "../lib/errors.ts";
import { native } from "../lib/native/library.ts";

export const command: Command = {
  name: "gpu-check",
  summary: "Says whether this machine has a GPU that voxalign can measure; so far it can measure none.",
  positionals: [],
  flags: {},
};

/** Ends with exit 1 in either case: the library finds GPUs, but does not launch its kernels yet. */
function main(): Promise<never> {
  const gpus = native().vx_cuda_devices();
  throw new UserError(
    gpus === 0
      ? "the CUDA driver finds no GPU on this machine; run it where there is one"
      : `${gpus} GPU(s) found, but the library does not launch its CUDA kernels yet, so nothing was measured; ` +
        "deno task shim and deno task kernels test them without a GPU",
  );
}

if (import.meta.main) await run(command, main);
