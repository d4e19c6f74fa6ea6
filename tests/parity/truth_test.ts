/** Ten optimiser steps of every method equal PyTorch's: losses to 1e-4, final weights to 1e-4 of their largest value. */
import { assert, assertEquals } from "@std/assert";
import { methods } from "../../lib/methods/registry.ts";
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

Deno.test("truth: every method of the registry is compared", () => {
  const compared = cases();
  const missing = methods.filter((m) => !m.first).map((m) => m.name).filter((name) =>
    !compared.some((c) => c.startsWith(name))
  );
  assertEquals(missing, []);
});
