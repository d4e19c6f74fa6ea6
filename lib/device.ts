/** Which device computes. */
import { type Flag, log } from "./config.ts";
import { UserError } from "./errors.ts";
import { useCard } from "./gpu/kernels.ts";
import { useWays } from "./gpu/ways.ts";
import { KERNELS, native } from "./native/library.ts";

/** Flags of every script that may compute on a GPU. */
export const deviceFlags = {
  device: { type: "string", default: "auto", choices: ["auto", "cpu", "cuda"], help: "where to compute" },
  kernels: {
    type: "string",
    access: "write",
    fallback: KERNELS,
    help:
      "folder that keeps kernels compiled for a GPU that the library has none for (default native/target/kernels)",
  },
} satisfies Record<string, Flag>;

/** What a GPU did since the last report. */
export interface DeviceReport {
  card: string;
  /** Bytes of the card. */
  memory: number;
  launches: number;
  /** Tensors copied from and to the host. */
  uploads: number;
  downloads: number;
  /** Tensors sent by the second stream while a step computed. */
  ahead: number;
  /** Times that the host waited for the card. */
  waits: number;
  /** Graphs that stood for many launches. */
  graphs: number;
  /** Times that memory was asked of the card. */
  allocations: number;
  /** Bytes in use, at most in use at once, and held with what is free. */
  live: number;
  peak: number;
  held: number;
  /** Ops that computed on the host, by the line of their job, and how often. */
  on_host: Record<string, number>;
}

let computing: "cpu" | "cuda" = "cpu";

/** The device that computes. */
export function device(): "cpu" | "cuda" {
  return computing;
}

/** Whether ops run on a GPU now. */
export function onCard(): boolean {
  return native().vx_device_active() === 1;
}

/**
 * Turns the GPU on where --device asks for it. `auto` says in one line why the GPU is not used.
 * @param kernels folder of --kernels
 * @returns the device that computes from now on
 * @throws UserError for `cuda` where there is no GPU that works
 */
export function chooseDevice(wanted: string, kernels = KERNELS): "cpu" | "cuda" {
  if (wanted === "cpu") return computing;
  try {
    useCard(kernels);
  } catch (error) {
    const why = (error as Error).message;
    if (wanted === "cuda") throw new UserError(`--device cuda: ${why}; use --device cpu`);
    log(`computing on the CPU: ${why}`);
    return computing;
  }
  const { card } = deviceReport();
  const checked = useWays(kernels, card);
  const how = checked?.ways.length ? ` with ${checked.ways.join(", ")}` : "";
  log(
    `computing on ${card}${how}: ${
      checked
        ? `checked ${checked.date}`
        : "not checked yet, deno task gpu-check compares it with the CPU and finds what is faster"
    }`,
  );
  return computing = "cuda";
}

/** What the GPU did since the last call. Waits for nothing: call it after `wait()`. */
export function deviceReport(): DeviceReport {
  const text = new Uint8Array(1 << 16);
  const length = native().vx_device_report(text, text.length);
  return JSON.parse(new TextDecoder().decode(text.subarray(0, length)));
}
