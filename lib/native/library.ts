/**
 * Opens the native library once and calls it. Every export returns a number: 0 or more is the result, a negative one
 * is the ticket of an error, thrown here as a UserError with the library's sentence.
 */
import { fromFileUrl } from "@std/path";
import { UserError } from "../errors.ts";
import { ABI_HASH, symbols } from "./abi.ts";

type Symbols = typeof symbols;
type Value<K> = K extends "buffer" ? ArrayBufferView | null : K extends "bool" ? boolean : number;
type Values<P extends readonly unknown[]> = { -readonly [I in keyof P]: Value<P[I]> };
/** The exports as plain functions; those that end in `_wait` return a promise. */
export type Native = {
  [K in keyof Symbols]: (
    ...args: Values<Symbols[K]["parameters"]>
  ) => Symbols[K] extends { nonblocking: true } ? Promise<number> : number;
};

const file = { darwin: "libvoxalign.dylib", windows: "voxalign.dll" }[Deno.build.os as string] ??
  "libvoxalign.so";

/** Where `deno task build` leaves the library. */
export const LIBRARY: string = fromFileUrl(new URL(`../../native/target/release/${file}`, import.meta.url));

/** Where kernels that are compiled for a GPU at first use are kept. */
export const KERNELS: string = fromFileUrl(new URL("../../native/target/kernels", import.meta.url));

let opened: Native | undefined;

/** Opens the library at `path` in place of the one that is built for use: before anything else calls it. */
export function openAt(path: string): void {
  if (opened) throw new Error("the native library is open already");
  opened = open(path);
}

/** The native functions. Opens the library on first use. @throws UserError when it is missing or of another build. */
export function native(): Native {
  return opened ??= open(LIBRARY);
}

function open(path: string): Native {
  let library: Deno.DynamicLibrary<Symbols>;
  try {
    library = Deno.dlopen(path, symbols);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new UserError(
      `the native library ${path} does not open (${(error as Error).message}); run: deno task build`,
    );
  }
  const raw = library.symbols as unknown as Record<string, (...args: unknown[]) => number | Promise<number>>;
  if (raw.vx_abi_hash() !== ABI_HASH) {
    throw new UserError(
      `the native library ${path} is of another build than lib/native/abi.ts; run: deno task build`,
    );
  }
  const check = (result: number): number => {
    if (result >= 0) return result;
    const text = new Uint8Array(2000);
    const n = raw.vx_error_text(-result, text, text.length) as number;
    throw new UserError(n >= 0 ? new TextDecoder().decode(text.subarray(0, n)) : "unknown native error");
  };
  const running = new Set<unknown[]>(); // buffers of calls under way stay alive
  const out: Record<string, unknown> = {};
  for (const name of Object.keys(symbols)) {
    const call = raw[name];
    out[name] = name.endsWith("_wait")
      ? async (...args: unknown[]) => {
        running.add(args);
        return check(await (call(...args) as Promise<number>).finally(() => running.delete(args)));
      }
      : (...args: unknown[]) => check(call(...args) as number);
  }
  return out as Native;
}
