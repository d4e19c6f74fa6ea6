/** The CPU that judges the GPU: in vectors, and beside them its tile registers, which need a judge themselves. */
import { native } from "../native/library.ts";
import { conv3d } from "../ops/conv3d.ts";
import { linear } from "../ops/linear.ts";
import type { Side } from "../tensor.ts";
import type { Begin } from "./apart.ts";
import { masked, matrix, type ParityRow, values, volumeOf, worst } from "./parity.ts";

/** Levels of `vx_force_isa`; 0 is the choice of the library. */
const VECTORS = 4, TILES = 5, EMULATED = 6;
/** Relative to the largest value: stored values are bf16, sums of f32 are in another order. */
const TOLERANCE = 0.02;

/** Forces an instruction set. False: this processor does not offer it. */
function force(level: number): boolean {
  try {
    native().vx_force_isa(level);
    return true;
  } catch {
    return false;
  }
}

/** From here on the CPU takes vectors where it would take AMX: a fault of AMX is then no fault of the GPU. */
export function byVectors(): void {
  if (force(TILES)) force(VECTORS);
}

/** Convolutions in bf16: block side of the output, channels, kernel, stride. */
const CONVOLUTIONS: [Side, number, number, 1 | 3, 1 | 2][] = [
  [[4, 8, 8], 32, 32, 3, 1],
  [[4, 4, 8], 64, 128, 3, 1],
  [[3, 5, 7], 64, 32, 3, 1],
  [[1, 1, 1], 32, 64, 3, 1],
  [[4, 4, 4], 32, 64, 3, 2],
  [[4, 4, 8], 64, 32, 1, 1],
];
/** Linear layers in bf16: rows, channels. */
const LINEAR = [[300, 256, 192], [70, 40, 24]];

/**
 * Outputs and gradients in bf16 by AMX and by AVX-512, where the processor has both.
 * @param emulate with tile registers that are emulated where there are none
 */
export async function* tileRegisters(begin: Begin, emulate: boolean): AsyncGenerator<ParityRow> {
  const level = [TILES, ...(emulate ? [EMULATED] : [])].find(force);
  if (level === undefined) return;
  const cases = [
    ...CONVOLUTIONS.map(([side, cIn, cOut, kernel, stride]) => ({
      name: `conv3d ${kernel}^3 stride ${stride} ${side.join("x")} C${cIn} to ${cOut}`,
      make() {
        const from = side.map((s) => s * stride) as unknown as Side;
        const x = volumeOf({ grid: masked(), side: from }, cIn, 1, "bf16");
        const [w, b] = [matrix(cOut, cIn * kernel ** 3, 2), matrix(1, cOut, 3)];
        return { inputs: [x, w, b], body: () => conv3d(x, w, b, stride) };
      },
    })),
    ...LINEAR.map(([rows, cIn, cOut]) => ({
      name: `linear ${rows} x ${cIn} to ${cOut}`,
      make() {
        const [x, w, b] = [matrix(rows, cIn, 1, "bf16"), matrix(cOut, cIn, 2), matrix(1, cOut, 3)];
        return { inputs: [x, w, b], body: () => linear(x, w, b) };
      },
    })),
  ];
  for (const { name, make } of cases) {
    const about = { op: `CPU: AMX against AVX-512, ${name} bf16`, tolerance: TOLERANCE, on_host: {} };
    if (!begin(about.op)) continue;
    try {
      native().vx_device_use(false);
      force(VECTORS);
      const want = await values({ make });
      force(level);
      const error = worst(want, await values({ make }));
      yield { ...about, error, ok: error <= TOLERANCE };
    } catch (failure) {
      yield { ...about, error: (failure as Error).message, ok: false };
    }
  }
  force(0);
  native().vx_device_use(true);
}
