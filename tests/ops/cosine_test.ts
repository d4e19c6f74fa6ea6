import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { cosineLoss, normalize, rollHalf, spread } from "../../lib/ops/cosine.ts";
import { scope, Tensor } from "../../lib/tensor.ts";
import { judge, leakFree, wave } from "./wave.ts";

const student = () => Tensor.from(wave(30, .7, .1), 5);
const teacher = () => Tensor.from(wave(30, 1.3, .4), 5);

Deno.test(
  "normalize: values and gradient as torch, a zero row stays zero",
  leakFree(() =>
    scope(() => {
      const values = wave(30, .7, .1).fill(0, 25);
      judge("normalize", Tensor.from(values, 5), normalize, 1e-9);
    })
  ),
);

Deno.test(
  "cosineLoss: value and gradient as torch",
  leakFree(() => scope(() => judge("cosine", student(), (p) => cosineLoss(p, teacher())))),
);

Deno.test(
  "D12: cosineLoss is 0 for equal directions, 2 for orthogonal, 4 for opposite",
  leakFree(() =>
    scope(() => {
      const of = (...v: number[]) => Tensor.from(Float32Array.from(v), 2);
      assertEquals(cosineLoss(of(1, 0, 0, 2), of(3, 0, 0, 1)).read()[0], 0);
      assertEquals(cosineLoss(of(1, 0, 0, 2), of(0, 1, 5, 0)).read()[0], 2);
      assertEquals(cosineLoss(of(1, 0, 0, 2), of(-1, 0, 0, -7)).read()[0], 4);
    })
  ),
);

Deno.test(
  "rollHalf: rolls by half the batch; an odd batch is refused",
  leakFree(() =>
    scope(() => {
      const x = Tensor.from(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), 1);
      assertEquals(Array.from(rollHalf(x, 2).read()), [5, 6, 7, 8, 1, 2, 3, 4]);
      const odd = Tensor.from(new Float32Array(6), 1);
      assertThrows(() => rollHalf(odd, 2), UserError, "batch");
    })
  ),
);

Deno.test(
  "spread: sqrt(c) times the mean channel deviation of unit rows, 0 for rows of one direction",
  leakFree(() =>
    scope(() => {
      const [rows, c] = [6, 5];
      const values = wave(rows * c, .7, .1);
      const unit = Array.from({ length: rows }, (_, r) => {
        const row = [...values.subarray(r * c, (r + 1) * c)];
        return row.map((v) => v / Math.hypot(...row));
      });
      const deviation = (channel: number) => {
        const column = unit.map((row) => row[channel]);
        const mean = column.reduce((a, b) => a + b) / rows;
        return Math.sqrt(column.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (rows - 1));
      };
      const want = Math.sqrt(c) * [0, 1, 2, 3, 4].map(deviation).reduce((a, b) => a + b) / c;
      assertAlmostEquals(spread(Tensor.from(values, c)).read()[0], want, 1e-6);
      const same = Float32Array.from({ length: 20 }, (_, i) => (1 + Math.floor(i / 5)) * (i % 5 + 1));
      assertAlmostEquals(spread(Tensor.from(same, 5)).read()[0], 0, 1e-3);
    })
  ),
);
