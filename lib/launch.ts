/** What the launcher decides before it starts anything: where the library is, whether it is current, which grants. */
import { dirname, join, resolve } from "@std/path";
import { log } from "./config.ts";

/** Length above which a list of granted paths is shortened to folders: a single argument of Linux holds 128 KiB. */
const LONGEST_LIST = 100_000;

/** Path of the native library below the repository `root`, by the name that this system gives it. */
export function libraryPath(root: string): string {
  const names: Record<string, string> = { darwin: "libvoxalign.dylib", windows: "voxalign.dll" };
  return join(root, "native", "target", "release", names[Deno.build.os] ?? "libvoxalign.so");
}

/** Whether the library is there, and whether no file that it is built from is newer. */
export function libraryState(root: string): "current" | "stale" | "missing" {
  const modified = (path: string): number => {
    try {
      return Deno.statSync(path).mtime?.getTime() ?? 0;
    } catch {
      return -1;
    }
  };
  const built = modified(libraryPath(root));
  if (built < 0) return "missing";
  const newer = (path: string): boolean => {
    try {
      for (const entry of Deno.readDirSync(path)) {
        const inner = join(path, entry.name);
        if (entry.isDirectory ? newer(inner) : modified(inner) > built) return true;
      }
    } catch { /* a tree without sources has nothing newer */ }
    return false;
  };
  const single = ["Cargo.toml", "Cargo.lock", "build.rs", "shim/device.cuh", "shim/ptx.cuh"].map((name) =>
    join(root, "native", name)
  );
  return single.some((path) => modified(path) > built) || newer(join(root, "native", "src"))
    ? "stale"
    : "current";
}

/**
 * A permission flag of Deno for `paths` (relative ones count from `cwd`), or none for an empty list. Deno 2.9 splits the
 * value on commas and has no escape for one, so a path with a comma is granted by its nearest folder without, and the
 * log says so. A list too long for a command line is granted by its folders.
 */
export function permission(kind: "read" | "write" | "ffi", paths: string[], cwd: string): string[] {
  let granted = [...new Set(paths.map((path) => resolve(cwd, path)))].map((path) => {
    let folder = path;
    while (folder.includes(",")) folder = dirname(folder);
    if (folder !== path) {
      log(`"${path}" holds a comma, which a grant cannot: ${kind} access is given to all of ${folder}`);
    }
    return folder;
  });
  while (granted.join(",").length > LONGEST_LIST) {
    granted = [...new Set(granted.map((path) => dirname(path)))];
  }
  return granted.length ? [`--allow-${kind}=${granted.join(",")}`] : [];
}

/** The paths listed in `bytes`, one per line; empty lines are skipped. */
export function listedPaths(bytes: Uint8Array): string[] {
  return new TextDecoder().decode(bytes).split(/\r?\n/).filter((line) => line.trim() !== "");
}

/** Header and image of the pair that `path` names by its `.hdr` or `.img`; `path` alone for any other file. */
export function halvesOf(path: string): [file: string, image?: string] {
  const found = path.match(/^(.*\.)(hdr|img)((\.gz)?)$/i);
  if (!found) return [path];
  const [, stem, half, gz] = found;
  const [header, image] = half === half.toUpperCase() ? ["HDR", "IMG"] : ["hdr", "img"];
  return [stem + header + gz, stem + image + gz];
}

/** The counts in the summary line of `deno test` (the last one in `text`), colours or not; zeros without one. */
export function testCounts(text: string): { passed: number; failed: number } {
  // deno-lint-ignore no-control-regex
  const plain = text.replaceAll(/\x1b\[[0-9;]*m/g, "");
  const [, passed, failed] = [...plain.matchAll(/^\S+ \| (\d+) passed.*? \| (\d+) failed/gm)].at(-1) ?? [];
  return { passed: Number(passed ?? 0), failed: Number(failed ?? 0) };
}
