/** The library whose GPU is the emulated card: `deno task shim` builds it. */
import { fromFileUrl } from "@std/path";
import { log } from "../../lib/config.ts";
import { openAt } from "../../lib/native/library.ts";

const file = Deno.build.os === "darwin" ? "libvoxalign.dylib" : "libvoxalign.so";
const LIBRARY = fromFileUrl(new URL(`../../native/target/emulated/${file}`, import.meta.url));

/** Opens it. @returns false, with the reason in the log, where these tests cannot run */
export function openEmulated(): boolean {
  if (Deno.permissions.querySync({ name: "ffi", path: LIBRARY }).state !== "granted") {
    log("emulated card: skipped, it runs under deno task shim");
    return false;
  }
  try {
    openAt(LIBRARY);
    return true;
  } catch (error) {
    log(`emulated card: skipped, ${(error as Error).message}; it runs under deno task shim`);
    return false;
  }
}
