import { assert, assertAlmostEquals, assertThrows } from "@std/assert";
import { Tape } from "../../lib/autograd.ts";
import { UserError } from "../../lib/errors.ts";
import { align } from "../../lib/ops/align.ts";
import { rollHalf } from "../../lib/ops/cosine.ts";
import { gramLoss } from "../../lib/ops/gram.ts";
import { ntXent } from "../../lib/ops/ntxent.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { channelsLast, judge, leakFree, wave } from "./wave.ts";

const student = () => Tensor.from(wave(30, .7, .1), 5);
const teacher = () => Tensor.from(wave(30, 1.3, .4), 5);

Deno.test(
  "ntXent: value and gradient as torch",
  leakFree(() => scope(() => judge("ntxent", student(), (p) => ntXent(p, teacher()).loss))),
);

Deno.test(
  "ntXent: golden vector of teacher masking",
  leakFree(() =>
    scope(() => {
      const { loss } = ntXent(Tensor.from(wave(12, 1, 1), 3), Tensor.from(wave(12, .7, .3), 3));
      assertAlmostEquals(loss.read()[0], 3.0419660242, 1e-5);
    })
  ),
);

Deno.test(
  "D24: ntXent of one image, or of an odd number of views, is refused by name of the field",
  leakFree(() =>
    scope(() => {
      for (const rows of [1, 2, 5]) {
        const x = Tensor.full(1, rows, 3);
        assertThrows(() => ntXent(x, x), UserError, "batch");
      }
    })
  ),
);

Deno.test(
  "ntXent: the teacher receives no gradient",
  leakFree(() =>
    scope(() => {
      const [s, t] = [student(), teacher()];
      const { tape, result } = Tape.record([s, t], () => ntXent(s, t).loss);
      const gradients = tape.backward(result);
      assert(gradients.has(s) && !gradients.has(t));
    })
  ),
);

Deno.test(
  "gramLoss: value and gradient as torch",
  leakFree(() => scope(() => judge("gram", student(), (p) => gramLoss(p, teacher(), 3)))),
);

Deno.test(
  "D01 D02 D12: golden InfoNCE, Gram and contrastive values of consistent view alignment as published",
  leakFree(() =>
    scope(() => {
      const volume = (a: number, b: number) =>
        Tensor.from(channelsLast(wave(4 * 5 * 216, a, b), 4, 5, 216), 5, {
          grid: Grid.dense(4),
          side: [6, 6, 6],
        });
      const b = Float32Array.of(
        .1,
        .2,
        .3,
        1,
        1,
        1,
        .3,
        .2,
        .1,
        1,
        1,
        1,
        0,
        0,
        0,
        .9,
        .8,
        .7,
        0,
        0,
        0,
        .7,
        .8,
        .9,
      );
      const p = align(volume(.7, .1), b, [2, 2, 2], 2, "published");
      const z = rollHalf(align(volume(1.3, .4), b, [2, 2, 2], 2, "published"), 8);
      assertAlmostEquals(gramLoss(p, z, 8).read()[0], 2.654149, 1e-5);
      assertAlmostEquals(ntXent(p, z).loss.read()[0], 4.603186, 1e-5);
      const { loss: image } = ntXent(
        Tensor.from(wave(20, .9, .2), 5),
        rollHalf(Tensor.from(wave(20, 1.1, .5), 5), 1),
      );
      assertAlmostEquals(image.read()[0], 1.603531, 1e-5);
    })
  ),
);

Deno.test(
  "ntXent: accuracy counts the rows whose positive is more similar than every negative",
  leakFree(() =>
    scope(() => {
      // Two images: students point where their teachers do, then where the teachers of the other image do.
      const [e, f] = [[1, 0, 0], [0, 1, 0]];
      const rows = (...all: number[][]) => Tensor.from(Float32Array.from(all.flat()), 3);
      assertAlmostEquals(ntXent(rows(e, f, e, f), rows(e, f, e, f)).accuracy.read()[0], 1);
      assertAlmostEquals(ntXent(rows(f, e, f, e), rows(e, f, e, f)).accuracy.read()[0], 0);
      // The student of the first crop alone is wrong: its row, and that of its teacher, are not found.
      assertAlmostEquals(ntXent(rows([0, .8, .6], f, e, f), rows(e, f, e, f)).accuracy.read()[0], 6 / 8);
    })
  ),
);
