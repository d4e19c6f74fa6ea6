/** SIGTERM and SIGINT while something long runs. */
import { cancel } from "../tensor.ts";

/** Exit codes of a script that a signal stopped: 128 and its number, as shells have it. */
const CODES = { SIGINT: 130, SIGTERM: 143 } as const;

export type StopSignal = keyof typeof CODES;

/** The exit code after `signal`; 0 without one. */
export function stopCode(signal?: StopSignal): number {
  return signal ? CODES[signal] : 0;
}

/** Listens until it is disposed of. A signal cancels what is enqueued; the caller stops before its next step. */
export class Stop implements Disposable {
  /** The first that came. */
  signal?: StopSignal;
  /** Resolves when it comes. */
  readonly came: Promise<undefined>;
  readonly #listeners: [StopSignal, () => void][];

  constructor() {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.came = promise;
    const listener = (signal: StopSignal) => () => {
      this.signal ??= signal;
      cancel();
      resolve(undefined);
    };
    this.#listeners = (Object.keys(CODES) as StopSignal[]).map((signal) => [signal, listener(signal)]);
    for (const [signal, on] of this.#listeners) Deno.addSignalListener(signal, on);
  }

  [Symbol.dispose](): void {
    cancel(false);
    for (const [signal, on] of this.#listeners) Deno.removeSignalListener(signal, on);
  }
}
