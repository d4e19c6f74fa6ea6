/** The CUDA kernels as text: each has a budget and an emulated test, and each planted bug fits its kernel. */
import { assertEquals, assertNotEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { BUGS, planted, SERIALIZED } from "../../lib/gpu/bugs.ts";
import { budgets, faults, kernelNames } from "../../lib/gpu/gate.ts";

const native = new URL("../../native/", import.meta.url);
const source = (op: string) => Deno.readTextFileSync(new URL(`src/ops/${op}/kernel.cu`, native));
const CASES = [...Deno.readDirSync(new URL("shim/cases", native))].map(({ name }) => name.replace(".cpp", ""))
  .sort();

Deno.test("every kernel.cu has an emulated test, and a budget beside each kernel", () => {
  const ops = [...Deno.readDirSync(new URL("src/ops", native))].filter(({ isDirectory, name }) =>
    isDirectory &&
    [...Deno.readDirSync(new URL(`src/ops/${name}`, native))].some((file) => file.name === "kernel.cu")
  );
  assertEquals(ops.map(({ name }) => name).sort(), CASES);
  for (const op of CASES) {
    const names = kernelNames(source(op));
    assertNotEquals(names, []);
    assertEquals([...budgets(source(op)).keys()].sort(), names.sort());
  }
});

Deno.test("eight bugs, each a change of one place of a kernel", () => {
  assertEquals(BUGS.length, 8);
  for (const bug of [...BUGS, SERIALIZED]) assertNotEquals(planted(bug, source(bug.op)), source(bug.op));
  assertThrows(() => planted(BUGS[0], "other text"), UserError, "0 times");
});

Deno.test("the gate names what breaks a budget", () => {
  const row = { file: "", architecture: "sm_80", kernel: "k", registers: 32, stack: 0, spills: 0, notes: [] };
  const budget = { registers: 40, shared: 1024 };
  assertEquals(faults(row, budget), []);
  assertStringIncludes(faults({ ...row, registers: 41 }, budget)[0], "takes 41 registers, its budget is 40");
  assertStringIncludes(faults({ ...row, spills: 8 }, budget)[0], "spills 8 bytes");
  assertStringIncludes(faults({ ...row, stack: 16 }, budget)[0], "stack of 16 bytes");
  assertStringIncludes(
    faults({ ...row, notes: ["(C7520) products are serialized"] }, budget)[0],
    "are serialized",
  );
  assertStringIncludes(faults(row, { ...budget, shared: 1 << 20 })[0], "shared memory");
  assertStringIncludes(faults(row, undefined)[0], "no BUDGET line");
});
