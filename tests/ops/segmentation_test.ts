import { assertAlmostEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { diceCrossEntropy, softmax } from "../../lib/ops/segmentation.ts";
import { Grid, scope, type Side, Tensor } from "../../lib/tensor.ts";
import { close, goldens, judge, leakFree, wave } from "./wave.ts";

const side: Side = [3, 4, 2];
const labels = Uint8Array.from({ length: 48 }, (_, i) => i * 7 % 11 % 4);
const logits = () => Tensor.from(wave(192, .9, .3, 3), 4, { grid: Grid.dense(2), side });

Deno.test(
  "diceCrossEntropy: value and gradient as torch, per sample and over the batch",
  leakFree(() =>
    scope(() => {
      judge("dice_ce", logits(), (z) => diceCrossEntropy(z, labels));
      judge("dice_ce_batch", logits(), (z) => diceCrossEntropy(z, labels, { batchDice: true }));
    })
  ),
);

Deno.test(
  "diceCrossEntropy: uniform logits on half a cube, and on an empty one",
  leakFree(() =>
    scope(() => {
      const z = Tensor.full(0, 64, 2, { grid: Grid.dense(1), side: [4, 4, 4] });
      const half = new Uint8Array(64).fill(1, 32);
      assertAlmostEquals(diceCrossEntropy(z, half).read()[0], Math.LN2 - 0.5, 1e-6);
      assertAlmostEquals(diceCrossEntropy(z, new Uint8Array(64)).read()[0], Math.LN2 - 3.125e-7, 1e-6);
    })
  ),
);

Deno.test(
  "diceCrossEntropy: labels that do not fit are refused in one sentence",
  leakFree(() =>
    scope(() => {
      const z = logits();
      assertThrows(() => diceCrossEntropy(z, labels.subarray(1)), UserError, "47");
      const loss = diceCrossEntropy(z, labels.map((v) => v === 3 ? 9 : v));
      assertThrows(() => loss.read(), UserError, "9 is not one of the 4 classes");
    })
  ),
);

Deno.test(
  "softmax: as torch",
  leakFree(() => scope(() => close(softmax(logits()).read(), goldens.softmax.y))),
);
