/** The methods by name, and which network each runs on. */
import { resolve, toFileUrl } from "@std/path";
import { architectures } from "../arch/registry.ts";
import { oneOf, UsageError, UserError } from "../errors.ts";
import type { Architecture } from "../nn/network.ts";
import { ae } from "./ae.ts";
import { amaes } from "./amaes.ts";
import { cCva } from "./c-cva.ts";
import { contrastiveMae } from "./contrastive-mae.ts";
import { cva } from "./cva.ts";
import { gram } from "./gram.ts";
import { mae } from "./mae.ts";
import type { Method } from "./method.ts";
import { s3d } from "./s3d.ts";
import { simmim } from "./simmim.ts";
import { twoStage } from "./two-stage.ts";

export const methods: readonly Method[] = [
  ae,
  mae,
  simmim,
  s3d,
  amaes,
  contrastiveMae,
  cva,
  cCva,
  gram,
  twoStage,
];

/** Whether `name` is a file of the user's rather than a method of ours. */
export function isMethodFile(name: string): boolean {
  return /\.[mc]?[jt]s$/.test(name);
}

/** @throws UsageError that names the nearest method */
export function method(name: string): Method {
  const names = methods.map((m) => m.name);
  const found = methods.find((m) => m.name === name);
  if (!found) {
    throw new UsageError(
      `--method is "${name}"; ${oneOf(name, names)}, or give a .ts file`,
    );
  }
  return found;
}

/**
 * A method of ours by name, or `export const method` of the user's file.
 * @param path from the command line; it counts from the working folder
 * @throws UsageError for an unknown name; UserError for a file that holds no method
 */
export async function loadMethod(path: string): Promise<Method> {
  if (!isMethodFile(path)) return method(path);
  let found: Partial<Method> | undefined;
  try {
    found = (await import(toFileUrl(resolve(path)).href)).method;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new UserError(`--method ${path} cannot be loaded: ${(error as Error).message}`);
  }
  const { name, citation, summary, views, options, bind } = found ?? {};
  const texts = [name, citation, summary].every((text) => typeof text === "string" && text !== "");
  if (!texts || (views !== 1 && views !== 2) || typeof options !== "object" || typeof bind !== "function") {
    throw new UserError(
      `--method ${path}: it must export const method = { name, citation, summary, views, options, bind }; ` +
        `see docs/methods.md`,
    );
  }
  return found as Method;
}

/** Whether the method runs on this network: its kind, and what it must be able to do. */
export function runsOn(method: Method, { kind = "cnn", whole, light }: Architecture): boolean {
  return (method.networks ?? kind) === kind && !(method.sparse && whole) && (!method.light || light === true);
}

/** @throws UsageError for a network that the method cannot run on, naming the pairs that exist */
export function checkPair(method: Method, arch: Architecture): void {
  if (runsOn(method, arch)) return;
  const names = (list: readonly { name: string }[]) => list.map((m) => m.name).join(", ");
  throw new UsageError(
    `--method ${method.name} does not run on --arch ${arch.name}: it needs a ${
      method.sparse
        ? "CNN that encodes visible blocks alone"
        : method.light
        ? "CNN with a light decoder"
        : method.networks === "cnn"
        ? "CNN"
        : "token network"
    }; ${method.name} runs on ${
      names(architectures.filter((a) => runsOn(method, a)))
    }, and ${arch.name} runs ${names(methods.filter((m) => runsOn(m, arch)))}`,
  );
}
