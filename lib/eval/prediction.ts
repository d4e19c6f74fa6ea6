/** prediction.json: which model the predictions of a folder are of. One folder holds those of one model. */
import { join } from "@std/path";
import { UserError } from "../errors.ts";
import { exists, readJson, writeWhole } from "../files.ts";

/**
 * Writes prediction.json into `folder`.
 * @param about who predicts; `model`, a path, may change, everything else tells models apart
 * @param outputs names of the files that will be written
 * @throws UserError when the folder holds predictions of another model, or files of these names and no prediction.json
 */
export async function claim(
  folder: string,
  about: Record<string, unknown> & { model: string },
  outputs: string[],
): Promise<void> {
  const file = join(folder, "prediction.json");
  if (await exists(file)) {
    const before = await readJson(file) ?? {};
    const text = (value: unknown) => JSON.stringify(value);
    const odd = Object.keys(about).find((key) =>
      key !== "model" && before[key] !== undefined && text(before[key]) !== text(about[key])
    );
    if (odd) {
      throw new UserError(
        `${file}: the predictions there are of another model, ${before.model}, whose ${odd} differs; choose another -o`,
      );
    }
  } else {
    const found = await Promise.all(outputs.map((name) => exists(join(folder, name))));
    const first = outputs[found.indexOf(true)];
    if (first !== undefined) {
      throw new UserError(
        `${join(folder, first)} is there, and no prediction.json says which model made it; choose another -o`,
      );
    }
  }
  await writeWhole(file, JSON.stringify(about, null, 2) + "\n");
}
