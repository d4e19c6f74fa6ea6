/** Files that are there whole or not at all. */
import { UserError } from "./errors.ts";

/** Whether there is such a file or folder. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The object in a file. @throws UserError for a damaged file */
// deno-lint-ignore no-explicit-any
export async function readJson(path: string): Promise<Record<string, any>> {
  const text = await Deno.readTextFile(path);
  try {
    return JSON.parse(text);
  } catch {
    throw new UserError(`${path}: this is no whole JSON file; restore it or choose another folder`);
  }
}

/** The object in `text`, line `i` (from 0) of the JSON lines of `file`. @throws UserError for a damaged line */
export function readLine<T>(file: string, text: string, i: number): T {
  try {
    return JSON.parse(text);
  } catch {
    throw new UserError(
      `${file}:${i + 1}: this is no whole JSON line; restore the file or choose another -o`,
    );
  }
}

/** Writes a file under `<path>.partial`, then renames it. */
export async function writeWhole(path: string, bytes: Uint8Array | string): Promise<void> {
  const partial = `${path}.partial`;
  try {
    if (typeof bytes === "string") await Deno.writeTextFile(partial, bytes);
    else await Deno.writeFile(partial, bytes);
    await Deno.rename(partial, path);
  } catch (error) {
    await Deno.remove(partial).catch(() => {});
    throw error;
  }
}
