/** Which device computes. */
import { log } from "./config.ts";
import { UserError } from "./errors.ts";
import { native } from "./native/library.ts";

/**
 * Checks --device. `auto` says in one line why the GPU is not used.
 * @throws UserError for `cuda` where there is no GPU that works
 */
export function chooseDevice(wanted: string): void {
  if (wanted === "cpu") return;
  let why = "the CUDA path of this build does not train yet";
  try {
    native().vx_cuda_devices();
  } catch (error) {
    why = (error as Error).message;
  }
  if (wanted === "cuda") throw new UserError(`--device cuda: ${why}; use --device cpu`);
  log(`computing on the CPU: ${why}`);
}
