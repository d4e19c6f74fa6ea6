/** Ten optimiser steps of every method equal PyTorch's: losses to 1e-4, final weights to 1e-4 of their largest value. */
import { assert, assertEquals } from "@std/assert";
import { methods } from "../../lib/methods/registry.ts";
import { native } from "../../lib/native/library.ts";
import { memory, wait } from "../../lib/tensor.ts";
import { report } from "./report.ts";
import { cases, compare } from "./truth.ts";

for (const name of cases()) {
  Deno.test(`truth ${name}: ten steps as PyTorch`, async () => {
    const errors = await compare(name);
    report({ method: `${name}, ${errors.arch}`, ...errors });
    assert(errors.terms < 1e-5, `terms of the first step: ${errors.terms}`);
    assert(errors.losses < 1e-4, `losses: ${errors.losses}`);
    assert(errors.weights < 1e-4, `weights: ${errors.weights}`);
    await wait();
    assertEquals(memory().bytes, 0);
  });
}

for (const name of cases()) {
  Deno.test(`truth ${name} in bf16: ten losses within 2 % of PyTorch's in f64`, async () => {
    const { torch, arch, losses } = await compare(name, "bf16");
    report({ method: `${name}, ${arch}, bf16`, torch, losses });
    assert(losses < 0.02, `losses: ${losses}`);
  });
}

/** Ways of `vx_conv3d_algorithm`: by the rule, directly, by Winograd, in wide tiles. */
const WAYS = [0, 1, 2, 5];

for (const name of ["mae", "s3d", "amaes", "cva", "gram", "mae-primus"]) {
  Deno.test(`truth ${name}: ten steps as PyTorch on every instruction set, every way of convolving`, async () => {
    const lib = native();
    const best = lib.vx_force_isa(0);
    try {
      for (let level = 1; level <= best; level++) {
        lib.vx_force_isa(level);
        for (const way of WAYS) {
          lib.vx_conv3d_algorithm(way);
          const { losses, weights } = await compare(name);
          assert(losses < 1e-4, `instruction set ${level}, way ${way}: losses ${losses}`);
          assert(weights < 1e-4, `instruction set ${level}, way ${way}: weights ${weights}`);
        }
      }
    } finally {
      lib.vx_force_isa(0);
      lib.vx_conv3d_algorithm(0);
    }
    await wait();
    assertEquals(memory().bytes, 0);
  });
}

Deno.test("truth: every method of the registry is compared", () => {
  const compared = cases();
  const missing = methods.filter((m) => !m.first).map((m) => m.name).filter((name) =>
    !compared.some((c) => c.startsWith(name))
  );
  assertEquals(missing, []);
});
