/** Whether warp matrices lie on the card as the emulation assumes (PTX manual): known integers, compared one by one. */
import { native } from "../native/library.ts";
import { scope, Tensor, wait } from "../tensor.ts";
import type { Begin } from "./apart.ts";

/** One layout. `wrong`: where it first differs, or why it did not run. */
export interface FragmentRow {
  layout: string;
  ok: boolean;
  wrong?: string;
}

/** A test of `vx_fragments` on integers that bf16 holds: operands by their index, and what each place has to hold. */
interface Layout {
  layout: string;
  test: number;
  a: [length: number, value: (i: number) => number];
  b: [length: number, value: (i: number) => number];
  /** What value `i` of the result is. */
  want: (i: number) => number;
  /** Words for place `i`. */
  place: (i: number) => string;
}

const NONE: Layout["b"] = [1, () => 0];
/** 256 different values would not fit 8 bits of a bf16 and its sign: these repeat after 251, never within a row or column. */
const known = (i: number) => i % 251 - 125;
const small = (i: number) => (i * 37) % 23 - 11;

/** Sum over k of a(row, k) b(k, column). */
const product =
  (a: (i: number) => number, b: (i: number) => number, columns: number) => (row: number, column: number) => {
    let sum = 0;
    for (let k = 0; k < 16; k++) sum += a(row * 16 + k) * b(k * columns + column);
    return sum;
  };

const loaded = (turned: boolean): Layout => {
  const split = (i: number) => ({ lane: i >> 3, register: i >> 1 & 3, half: i & 1 });
  return {
    layout: turned ? "ldmatrix.x4.trans" : "ldmatrix.x4",
    test: turned ? 1 : 0,
    a: [256, known],
    b: NONE,
    want(i) {
      const { lane, register, half } = split(i);
      const [row, column] = turned ? [2 * (lane % 4) + half, lane >> 2] : [lane >> 2, 2 * (lane % 4) + half];
      return known(register * 64 + row * 8 + column);
    },
    place(i) {
      const { lane, register, half } = split(i);
      return `lane ${lane}, register ${register}, half ${half}`;
    },
  };
};

/** Three pairs of factors: rows of a alone, columns of b alone, then both with the summed index. */
const FACTORS: [words: string, a: (i: number) => number, b: (columns: number) => (i: number) => number][] = [
  ["rows of a and d", (i) => i >> 4, () => () => 1],
  ["columns of b and d", () => 1, (columns) => (i) => i % columns],
  ["summed index", small, () => (i) => small(i + 5)],
];

function products(): Layout[] {
  return FACTORS.flatMap(([words, a, ofB]): Layout[] => {
    const [b, wide] = [ofB(8), ofB(96)];
    const [of8, of96] = [product(a, b, 8), product(a, wide, 96)];
    const at = (i: number) => {
      const [lane, j] = [i >> 2, i & 3];
      return [(lane >> 2) + 8 * (j >> 1), 2 * (lane % 4) + (j & 1)] as const;
    };
    const spread = (i: number) => {
      const [thread, j] = [Math.floor(i / 48), i % 48];
      const lane = thread % 32;
      const row = (thread >> 5) * 16 + (lane >> 2) + 8 * (j >> 1 & 1);
      return [row, (j >> 2) * 8 + 2 * (lane % 4) + (j & 1)] as const;
    };
    return [
      {
        layout: `mma.sync.m16n8k16, ${words}`,
        test: 2,
        a: [256, a],
        b: [128, b],
        want: (i) => of8(...at(i)),
        place: (i) => `lane ${i >> 2}, register ${i & 3} (row ${at(i)[0]}, column ${at(i)[1]})`,
      },
      ...["", ", both turned"].map((turned, i) => ({
        layout: `wgmma.m64n96k16${turned}, ${words}`,
        test: 4 + i,
        a: [1024, a] as Layout["a"],
        b: [1536, wide] as Layout["b"],
        want: (i: number) => of96(...spread(i)),
        place: (i: number) =>
          `thread ${Math.floor(i / 48)}, register ${i % 48} (row ${spread(i)[0]}, column ${spread(i)[1]})`,
      })),
    ];
  });
}

const LAYOUTS: Layout[] = [
  loaded(false),
  loaded(true),
  {
    layout: "cp.async, 16 bytes or zeros",
    test: 3,
    a: [256, known],
    b: NONE,
    want: (i) => i >> 3 & 1 ? 0 : known(i),
    place: (i) => `value ${i}`,
  },
  ...products().sort((a, b) => a.test - b.test),
];

/** Runs every layout on the GPU in use; wgmma only where it has it. One row each, as they come. */
export async function* fragments(begin: Begin): AsyncGenerator<FragmentRow> {
  for (const { layout, test, a, b, want, place } of LAYOUTS) {
    if (test >= 4 && !native().vx_conv3d_stacked(false) || !begin(layout)) continue;
    try {
      yield await scope(async () => {
        const [x, y] = [a, b].map(([length, value]) =>
          Tensor.from(Float32Array.from({ length }, (_, i) => value(i)), length, undefined, "bf16")
        );
        const values = [256, 256, 128, 256, 6144, 6144][test];
        const out = new Tensor(native().vx_fragments(test, x.handle, y.handle), 1, values);
        await wait();
        const got = out.read();
        const first = got.findIndex((v, i) => v !== want(i));
        if (first < 0) return { layout, ok: true };
        const wrong = `${place(first)} holds ${got[first]}, the emulation has ${want(first)} there`;
        return { layout, ok: false, wrong };
      });
    } catch (error) {
      yield { layout, ok: false, wrong: (error as Error).message };
    }
  }
}
