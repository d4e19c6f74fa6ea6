/** The methods by name. */
import { nearest, UsageError } from "../errors.ts";
import { cva } from "./cva.ts";
import { mae } from "./mae.ts";
import type { Method } from "./method.ts";
import { s3d } from "./s3d.ts";

export const methods: readonly Method[] = [mae, s3d, cva];

/** @throws UsageError that names the nearest method */
export function method(name: string): Method {
  const names = methods.map((m) => m.name);
  const found = methods.find((m) => m.name === name);
  if (!found) {
    throw new UsageError(
      `--method is "${name}"; did you mean "${nearest(name, names)}"? (${names.join(", ")})`,
    );
  }
  return found;
}
