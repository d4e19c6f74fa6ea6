/** Which device computes. */
import { log } from "../config.ts";
import { UserError } from "../errors.ts";
import { native } from "./library.ts";

/**
 * The device for `--device auto|cpu|cuda`; `auto` says on standard error why it is not the GPU.
 * @throws UserError when `cuda` is asked for and cannot be had
 */
export function chooseDevice(wanted: string): "cpu" {
  if (wanted === "cpu") return "cpu";
  let why = "the CUDA path of this build does not train yet";
  try {
    native().vx_cuda_devices();
  } catch (error) {
    why = (error as Error).message;
  }
  if (wanted === "cuda") throw new UserError(`--device cuda: ${why}; use --device cpu`);
  log(`computing on the CPU: ${why}`);
  return "cpu";
}
