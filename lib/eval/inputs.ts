/** Which files make up the cases of a prediction. */
import { basename, join } from "@std/path";
import { UserError } from "../errors.ts";

/** A case: one file per channel, in channel order; `problem` says in a sentence why it cannot be predicted. */
export interface Input {
  id: string;
  files: string[];
  problem?: string;
}

const SUFFIX = /\.nii(\.gz)?$/;

/**
 * Groups NIfTI files, and those in folders, by case: CASE_0000.nii.gz is channel 0 of CASE. For a model of one channel
 * a file without such a number is a case of its own. Sorted by case.
 * @param listed more paths, from a list: one that does not exist is kept, to be refused by name
 * @throws UserError for one of `given` that does not exist, when there is no NIfTI file, or two files claim one channel of one case
 */
export async function findInputs(given: string[], listed: string[], channels: number): Promise<Input[]> {
  const paths = [...given, ...listed];
  const files: string[] = [];
  for (const path of paths) {
    const info = await Deno.stat(path).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      if (!listed.includes(path)) {
        throw new UserError(`${path}: there is no such file or folder; correct the path`);
      }
    });
    if (!info?.isDirectory) files.push(path);
    else {
      const names = [...Deno.readDirSync(path)].map((entry) => entry.name).filter((name) =>
        SUFFIX.test(name)
      );
      files.push(...names.filter((name) => !name.startsWith(".")).map((name) => join(path, name)));
    }
  }
  if (files.length === 0) throw new UserError(`${paths.join(", ")}: there is no .nii or .nii.gz file`);
  const cases = new Map<string, Map<number, string>>();
  for (const file of files) {
    const stem = basename(file).replace(SUFFIX, "");
    const [, name, digits] = stem.match(/^(.+)_(\d{4})$/) ?? [];
    const [id, channel] = name === undefined ? [stem, 0] : [name, Number(digits)];
    const of = cases.get(id) ?? new Map();
    const other = of.get(channel);
    if (other !== undefined && other !== file) {
      throw new UserError(
        `${other} and ${file}: both are channel ${channel} of case "${id}"; give one of them`,
      );
    }
    cases.set(id, of.set(channel, file));
  }
  return [...cases].sort(([a], [b]) => a < b ? -1 : 1).map(([id, of]) => {
    const wanted = Array.from({ length: channels }, (_, c) => c);
    const missing = wanted.find((c) => !of.has(c));
    const first = [...of.values()][0];
    if (missing !== undefined) {
      const file = `${id}_${String(missing).padStart(4, "0")}`;
      return {
        id,
        files: [],
        problem: `${first}: the model needs ${channels} channels, ${file} is missing beside it`,
      };
    }
    if (of.size > channels) {
      return {
        id,
        files: [],
        problem: `${first}: case "${id}" has ${of.size} channels, the model takes ${channels}`,
      };
    }
    return { id, files: wanted.map((c) => of.get(c)!) };
  });
}
