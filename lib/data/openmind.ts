/**
 * The lists that large collections come with: `pretrain_data.json` of nnssl and OpenMind (collection, dataset, subject,
 * session, image) and `openneuro_metadata.csv` of the OpenMind distribution (one row per image).
 */
import { basename, dirname, isAbsolute, join } from "@std/path";
import { UserError } from "../errors.ts";

/** One image of a list. */
export interface Listed {
  path: string;
  /** Name below the list's folder, from which the id is made. */
  name: string;
  modality?: string;
  /** Collection-wide id of the person: splits go by it. */
  subject?: string;
  /** The list names an anonymisation or an anatomy mask for it. Nothing reads them yet. */
  masks?: true;
}

interface Image {
  name?: unknown;
  modality?: unknown;
  image_path?: unknown;
  associated_masks?: Record<string, unknown> | null;
}
type Tree = Record<
  string,
  { subjects?: Record<string, { sessions?: Record<string, { images?: Image[] }> }> }
>;

/** Whether a path is such a list by its name. */
export function isListing(path: string): boolean {
  return /\.(json|csv)$/i.test(path) && basename(path) !== "dataset.json";
}

/**
 * The images that a list names, in its order. Paths count from the list's folder; one that begins with a variable
 * (`$nnssl_raw/Dataset745_OpenMind/...`) counts from the folder above the list that holds the rest of it.
 * @throws UserError when the file is no such list, naming file, row and field
 */
export function readListing(file: string, text: string): Listed[] {
  const images = file.toLowerCase().endsWith(".csv") ? rows(file, text) : tree(file, text);
  if (!images.length) throw new UserError(`${file}: the list names no image; give another list or a folder`);
  return images;
}

function tree(file: string, text: string): Listed[] {
  let root: { datasets?: Tree };
  try {
    root = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${file}: this is not JSON (${(error as Error).message}); give a pretrain_data.json`);
  }
  if (typeof root?.datasets !== "object") {
    throw new UserError(`${file}: the key "datasets" is missing; a pretrain_data.json of nnssl has it`);
  }
  const found: Listed[] = [];
  for (const [dataset, { subjects = {} }] of Object.entries(root.datasets)) {
    for (const [person, { sessions = {} }] of Object.entries(subjects)) {
      for (const [session, { images = [] }] of Object.entries(sessions)) {
        images.forEach(({ name, modality, image_path, associated_masks }, i) => {
          if (typeof image_path !== "string") {
            throw new UserError(
              `${file}: image ${i} of ${dataset}/${person}/${session} has no "image_path"; add it`,
            );
          }
          found.push({
            path: resolvePath(file, image_path),
            name: [dataset, person, session, typeof name === "string" ? name : basename(image_path)].join(
              "/",
            ),
            subject: `${dataset}/${person}`,
            ...(typeof modality === "string" ? { modality } : {}),
            ...(Object.values(associated_masks ?? {}).some(Boolean) ? { masks: true } : {}),
          });
        });
      }
    }
  }
  return found;
}

function rows(file: string, text: string): Listed[] {
  const [head, ...lines] = fields(text);
  const column = (name: string) => head?.indexOf(name) ?? -1;
  if (column("image_path") < 0) {
    throw new UserError(`${file}: the column "image_path" is missing (found: ${head?.join(", ")}); add it`);
  }
  return lines.map((line, i) => {
    const path = line[column("image_path")];
    if (!path) throw new UserError(`${file}:${i + 2}: image_path is empty; fill it or delete the row`);
    const modality = line[column("modality")];
    // Distribution paths are DATASET/sub-ID/ses-ID/...: a person is the first two parts.
    const parts = path.replace(/^\$\w+\//, "").split("/");
    const person = parts.findIndex((part) => part.startsWith("sub-"));
    return {
      path: resolvePath(file, path),
      name: parts.join("/"),
      ...(modality ? { modality } : {}),
      ...(["anon_mask_path", "anat_mask_path"].some((name) => line[column(name)]) ? { masks: true } : {}),
      ...(person >= 0 ? { subject: parts.slice(0, person + 1).join("/") } : {}),
    };
  });
}

/** Rows of a CSV text (RFC 4180: quotes double inside quotes); empty lines are skipped. */
function fields(text: string): string[][] {
  const out: string[][] = [];
  let row: string[] = [];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^,\r\n]*))(,|\r?\n|$)/g)) {
    row.push(quoted?.replaceAll('""', '"') ?? plain);
    if (end === ",") continue;
    if (row.some((field) => field !== "")) out.push(row);
    row = [];
  }
  return out;
}

function resolvePath(file: string, path: string): string {
  const [, rest] = path.match(/^\$\w+\/(.*)$/) ?? [];
  if (rest === undefined) return isAbsolute(path) ? path : join(dirname(file), path);
  const first = rest.split("/")[0];
  for (let folder = dirname(file);; folder = dirname(folder)) {
    if (basename(folder) === first) return join(dirname(folder), rest);
    if (folder === dirname(folder)) return join(dirname(file), rest);
  }
}
