/** The networks by name. */
import { oneOf, UsageError } from "../errors.ts";
import type { Architecture } from "../nn/network.ts";
import { mednextL, mednextLNative, mednextM, mednextMNative } from "./mednext.ts";
import { primusB, primusL, primusM, primusS } from "./primus.ts";
import { resencL, resencS } from "./resenc.ts";
import { swinUnetr } from "./swinunetr.ts";
import { unetB, unetXl } from "./unet.ts";

export const architectures: readonly Architecture[] = [
  resencS,
  resencL,
  unetB,
  unetXl,
  mednextM,
  mednextL,
  mednextMNative,
  mednextLNative,
  swinUnetr,
  primusS,
  primusB,
  primusM,
  primusL,
];

/** @throws UsageError that names the nearest network */
export function architecture(name: string): Architecture {
  const names = architectures.map((a) => a.name);
  const found = architectures.find((a) => a.name === name);
  if (!found) {
    throw new UsageError(`--arch is "${name}"; ${oneOf(name, names)}`);
  }
  return found;
}
