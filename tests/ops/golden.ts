/** Runs ops against PyTorch: forward, every gradient, finite differences, and nothing left alive. */
import { assert, assertEquals } from "@std/assert";
import { record, Tape } from "../../lib/autograd.ts";
import { native } from "../../lib/native/library.ts";
import { report } from "../parity/report.ts";
import { Grid, memory, scope, type Side, Tensor, volume } from "../../lib/tensor.ts";

/** One case of fixtures/ops_a.json with its values decoded. */
export interface Case {
  name: string;
  op: string;
  grid: { samples: number; dims: Side; side: Side; visible: number[] } | null;
  options: Record<string, number & string>;
  inputs: Record<string, false | { channels: number; values: string; leaf: boolean }>;
  y: string;
  channels: number;
  dy: string;
  gradients: Record<string, string>;
}

/** The op of a case on its inputs; `grid` and `side` are the case's. */
export type Op = (
  inputs: Record<string, Tensor>,
  options: Case["options"],
  grid: Grid | undefined,
  side: Side,
) => Tensor;

const text = await Deno.readTextFile(new URL("../../fixtures/ops_a.json", import.meta.url));
const { cases, versions: { torch } }: { cases: Case[]; versions: { torch: string } } = JSON.parse(text);

function decode(base64: string): Float32Array {
  return new Float32Array(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
}

function largest(values: Float32Array): number {
  return values.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-30);
}

/** Values equal to `tolerance` of the largest expected one. Returns the largest error. */
function assertClose(got: Float32Array, want: Float32Array, tolerance: number, what: string): number {
  assertEquals(got.length, want.length, what);
  const scale = largest(want);
  let error = 0;
  got.forEach((v, i) => {
    error = Math.max(error, Math.abs(v - want[i]) / scale);
    assert(error <= tolerance, `${what}[${i}]: ${v} against ${want[i]}`);
  });
  return error;
}

async function check(one: Case, op: Op): Promise<void> {
  await scope(() => {
    const g = one.grid;
    const grid = g ? new Grid(g.samples, g.dims, new Uint8Array(g.visible)) : undefined;
    const side = g?.side ?? [1, 1, 1];
    const inputs: Record<string, Tensor> = {};
    for (const [name, input] of Object.entries(one.inputs)) {
      if (!input) continue;
      const values = decode(input.values);
      const rows = values.length / input.channels;
      const onGrid = grid && rows === grid.blocks * volume(side) && rows > 1;
      inputs[name] = Tensor.from(values, input.channels, onGrid ? { grid, side } : undefined);
    }
    const dy = decode(one.dy);
    const run = () => op(inputs, one.options, grid, side);
    const leaves = Object.keys(one.gradients);
    const { tape, result } = Tape.record(leaves.map((k) => inputs[k]), () => {
      const y = run();
      const loss = record(
        Tensor.full(0, 1, 1),
        [y],
        () => [Tensor.from(dy, y.channels, y.layout)],
      );
      return { y, loss };
    });
    assertEquals(result.y.channels, one.channels);
    const output = assertClose(result.y.read(), decode(one.y), 1e-5, "y");
    let gradient = 0;
    const gradients = tape.backward(result.loss);
    const dot = () => run().read().reduce((sum, v, i) => sum + v * dy[i], 0);
    for (const leaf of leaves) {
      const input = inputs[leaf];
      const got = gradients.get(input)!.read();
      gradient = Math.max(
        gradient,
        assertClose(got, decode(one.gradients[leaf]), 1e-5, `gradient of ${leaf}`),
      );
      const values = input.read();
      if (largest(values) > 50) continue;
      for (const at of [0, values.length >> 1]) {
        const step = 2e-3;
        const moved = [step, -step].map((d) => {
          const copy = values.slice();
          copy[at] += d;
          input.write(copy);
          return dot();
        });
        input.write(values);
        const slope = (moved[0] - moved[1]) / (2 * step);
        assert(
          Math.abs(slope - got[at]) <= 0.03 * Math.max(1, largest(got)),
          `${leaf}[${at}] ${slope} ${got[at]}`,
        );
      }
    }
    report({ op: one.op, torch, output, gradient });
  });
  assertEmpty();
}

/** No tensor, grid or byte is alive. */
export function assertEmpty(): void {
  native().vx_queue_sync();
  const { tensors, grids, bytes } = memory();
  assertEquals({ tensors, grids, bytes }, { tensors: 0, grids: 0, bytes: 0 });
}

/** A test per case of `name`. */
export function golden(name: string, op: Op): void {
  const mine = cases.filter((c) => c.op === name);
  if (mine.length === 0) throw new Error(`fixtures/ops_a.json has no case of ${name}`);
  for (const one of mine) Deno.test(`${name}: ${one.name}`, () => check(one, op));
}
