/** The loss of a classifier. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/**
 * Mean over the rows of -log softmax(logits)[label], a scalar.
 * @param logits `[rows][classes]`
 * @param labels one integer below `classes` per row; another one is an error of the next wait
 */
export function crossEntropy(logits: Tensor, labels: Float32Array): Tensor {
  if (labels.length !== logits.rows) {
    throw new Error(`crossEntropy: ${labels.length} labels for ${logits.rows} rows`);
  }
  const truth = Tensor.from(labels, 1);
  const shape = [logits.handle, truth.handle, logits.rows, logits.channels] as const;
  const lib = native();
  const loss = new Tensor(lib.vx_cross_entropy(...shape), 1, 1);
  return record(loss, [logits], (dy) => [
    new Tensor(lib.vx_cross_entropy_grad(dy.handle, ...shape), logits.rows, logits.channels),
  ]);
}
