import { linear } from "../../lib/ops/linear.ts";
import { softmaxPool } from "../../lib/ops/softmax_pool.ts";
import { Grid, scope, Tensor } from "../../lib/tensor.ts";
import { judge, leakFree, wave } from "./wave.ts";

Deno.test(
  "softmaxPool: values and the gradient through rows and scores as torch",
  leakFree(() =>
    scope(() => {
      const x = Tensor.from(wave(2 * 5 * 6 * 4 * 3, 0.9, 0.3), 3, { grid: Grid.dense(2), side: [5, 6, 4] });
      const weight = Tensor.from(wave(3, 0.5, 0.2, 2), 3);
      judge("softmax_pool", x, (x) => softmaxPool(x, linear(x, weight)));
    })
  ),
);
