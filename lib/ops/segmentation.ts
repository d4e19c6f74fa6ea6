/** Losses and outputs of segmentation: nnU-Net's soft Dice plus cross entropy, softmax. */
import { record } from "../autograd.ts";
import { UserError } from "../errors.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";
import { dense } from "./separable.ts";

/** The loss of `n` samples of `voxels` rows each, with its gradient. `dice`: weight of the Dice term. */
function loss(logits: Tensor, truth: Tensor, n: number, batchDice: boolean, dice: number): Tensor {
  const shape = [n, logits.rows / n, logits.channels, batchDice, dice] as const;
  const lib = native();
  const value = new Tensor(lib.vx_dice_ce(logits.handle, truth.handle, ...shape), 1, 1);
  return record(value, [logits], (dy) => [
    new Tensor(
      lib.vx_dice_ce_grad(dy.handle, logits.handle, truth.handle, ...shape),
      logits.rows,
      logits.channels,
      logits.layout,
    ),
  ]);
}

/**
 * Cross entropy (mean over voxels) minus soft Dice (mean over classes 1 and up, smooth 1e-5), a scalar from -1 up.
 * @param logits dense `[n][z][y][x][classes]`
 * @param labels `[n][z][y][x]`, integers below `classes`; a tensor holds them as f32
 * @param batchDice Dice over the voxels of the whole batch instead of per sample
 * @throws UserError when the number of labels differs; for a label that is no class, at the next wait
 */
export function diceCrossEntropy(
  logits: Tensor,
  labels: Uint8Array | Tensor,
  { batchDice = false }: { batchDice?: boolean } = {},
): Tensor {
  const { n } = dense(logits);
  if (labels.length !== logits.rows) {
    throw new UserError(`labels: ${labels.length} values for ${logits.rows} voxels of the logits`);
  }
  const truth = labels instanceof Tensor ? labels : Tensor.from(Float32Array.from(labels), 1);
  return loss(logits, truth, n, batchDice, 1);
}

/**
 * Cross entropy of a classifier, a scalar: the mean over the rows of -log softmax(logits)[label].
 * @param logits `[rows][classes]`
 * @param labels one integer below `classes` per row; for another one, an error at the next wait
 */
export function crossEntropy(logits: Tensor, labels: Float32Array): Tensor {
  if (labels.length !== logits.rows) {
    throw new Error(`crossEntropy: ${labels.length} labels for ${logits.rows} rows`);
  }
  return loss(logits, Tensor.from(labels, 1), logits.rows, false, 0);
}

/** Class probabilities of `[rows][classes]` logits. For inference: records no gradient. */
export function softmax(logits: Tensor): Tensor {
  return new Tensor(
    native().vx_softmax(logits.handle, logits.rows, logits.channels),
    logits.rows,
    logits.channels,
    logits.layout,
  );
}
