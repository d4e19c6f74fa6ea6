/** What compilers say of the CUDA kernels, held against the budgets that stand beside them. */

/** What a kernel may need: registers per thread, bytes of shared memory per block. */
export interface Budget {
  registers: number;
  shared: number;
}

/** A line of `native/shim/compile.py`. */
export interface Compiled {
  file: string;
  architecture: string;
  kernel: string;
  registers: number;
  stack: number;
  spills: number;
  notes: string[];
}

/** Shared memory that one block may have on every card from sm_80 on, but sm_86 and sm_89 (99 KiB). */
const MOST_SHARED = 163 * 1024;

/** The `BUDGET(kernel, registers, shared)` lines of a kernel.cu. */
export function budgets(source: string): Map<string, Budget> {
  const lines = source.matchAll(/^BUDGET\((\w+), (\d+), (\d+)\);/gm);
  return new Map(
    [...lines].map(([, name, registers, shared]) => [name, { registers: +registers, shared: +shared }]),
  );
}

/** Names of the kernels in a kernel.cu. */
export function kernelNames(source: string): string[] {
  return [...source.matchAll(/extern "C" __global__ void (?:__launch_bounds__\(\d+\)\s*)?(\w+)\(/g)].map((
    [, name],
  ) => name);
}

/** What is wrong with a compiled kernel, one sentence each; empty when it keeps its budget. */
export function faults(row: Compiled, budget: Budget | undefined): string[] {
  const of = `${row.kernel} (${row.architecture})`;
  if (!budget) return [`${of} has no BUDGET line beside it`];
  return [
    row.spills > 0 && `${of} spills ${row.spills} bytes of registers`,
    row.stack > 0 && `${of} needs a stack of ${row.stack} bytes`,
    row.registers > budget.registers &&
    `${of} takes ${row.registers} registers, its budget is ${budget.registers}`,
    budget.shared > MOST_SHARED &&
    `${of} may ask for ${budget.shared} bytes of shared memory, a card has ${MOST_SHARED}`,
    row.notes.length > 0 && `${of}: the compiler notes ${row.notes.join(", ")}`,
  ].filter((fault): fault is string => typeof fault === "string");
}
