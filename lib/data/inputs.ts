/** Which NIfTI files a command line means, and the ids that their volumes get. */
import { basename, join } from "@std/path";
import { UserError } from "../errors.ts";
import { halvesOf } from "../launch.ts";
import { isListing, type Listed, readListing } from "./openmind.ts";

/** A NIfTI file to prepare. */
export interface Input {
  /** Unique among the inputs, derived from the path; safe as a file name. */
  id: string;
  /** The path as given or found. */
  path: string;
  /** Path of the `.img` when `path` is the `.hdr` of a pair. */
  image?: string;
  /** What a list says of it. */
  modality?: string;
  subject?: string;
  masks?: true;
}

const SUFFIX = /\.(nii|hdr)(\.gz)?$/i;

/** Whether a name is that of a NIfTI file or of the header of a pair. */
function isVolume(name: string): boolean {
  return SUFFIX.test(name) && !name.startsWith("._");
}

/** Relative paths of the volumes below a folder in order of name, `labelsTr` left out. */
async function* below(folder: string, relative = ""): AsyncGenerator<string> {
  const entries = await Array.fromAsync(Deno.readDir(join(folder, relative)));
  entries.sort((a, b) => a.name < b.name ? -1 : 1);
  for (const entry of entries) {
    const path = relative === "" ? entry.name : `${relative}/${entry.name}`;
    if (entry.isDirectory) {
      if (entry.name !== "labelsTr" && entry.name !== "labelsTs" && !entry.name.startsWith(".")) {
        yield* below(folder, path);
      }
    } else if (isVolume(entry.name)) yield path;
  }
}

/** A name for files and tables: the path without suffix and without the `imagesTr/` of nnU-Net, odd letters as `_`. */
function idOf(path: string): string {
  const plain = path.replace(SUFFIX, "").replace(/^imagesTr\//, "").replaceAll("\\", "/").split("/").filter((
    p,
  ) => p !== "" && p !== "." && p !== "..");
  const id = plain.join("__").replaceAll(/[^A-Za-z0-9._-]/g, "_").replace(/^[.-]+/, "");
  return id.length > 180 ? `${id.slice(0, 90)}-${id.slice(-80)}` : id || "volume";
}

/** 8 hex digits (FNV-1a) that tell paths apart. */
export function tag(path: string): string {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(path)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, "0");
}

/**
 * Finds the files that `paths` mean: files as they are, folders searched with all their folders, lists of collections
 * (`pretrain_data.json`, `openneuro_metadata.csv`) by what they name. A file named twice counts once. The id is the path below the given folder (the name, for a file); equal ids get a tag of their path.
 * @param listed more paths, from a list: one that does not exist is kept, to be refused by name
 * @throws UserError for one of `paths` that does not exist and for folders without volumes
 */
export async function findInputs(paths: string[], listed: string[] = []): Promise<Input[]> {
  const found = new Map<string, string>();
  const said = new Map<string, Pick<Listed, "modality" | "subject" | "masks">>();
  for (const path of [...paths, ...listed]) {
    const info = await Deno.stat(path).catch((error) => {
      if (error instanceof Deno.errors.NotFound) {
        if (listed.includes(path)) return undefined;
        throw new UserError(`${path}: there is no such file or folder; correct the path`);
      }
      throw error;
    });
    if (info?.isFile && isListing(path)) {
      for (const { path: image, name, ...facts } of readListing(path, await Deno.readTextFile(path))) {
        found.set(image, name);
        said.set(image, facts);
      }
      continue;
    }
    if (!info?.isDirectory) {
      const [header] = halvesOf(path);
      found.set(header, basename(header));
      continue;
    }
    for await (const inner of below(path)) {
      if (!found.has(join(path, inner))) found.set(join(path, inner), inner);
    }
  }
  if (found.size === 0) {
    const where = paths.concat(listed).join(", ") || "standard input";
    throw new UserError(
      `${where}: there is no .nii, .nii.gz or .hdr file; give files, or the folder of the images`,
    );
  }
  const byId = Map.groupBy(found, ([, name]) => idOf(name).toLowerCase());
  return [...byId.values()].flatMap((same) =>
    same.map(([path, name]) => ({
      id: same.length === 1 ? idOf(name) : `${idOf(name)}-${tag(path)}`,
      path,
      image: halvesOf(path)[1],
      ...said.get(path),
    }))
  );
}
