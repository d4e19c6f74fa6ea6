/** NT-Xent between a student and an EMA teacher (SimCLR's loss, the other rows of an image left out). */
import { record } from "../autograd.ts";
import { UserError } from "../errors.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";
import { normalize } from "./cosine.ts";

/**
 * Cross entropy of finding the teacher's row of the other view among all rows of other images. Rows are normalised
 * here. All four rows of one image are positive, self or left out. Memory: (2n)^2 values.
 * @param student `[n][c]`, first views then second views
 * @param teacher `[n][c]`, rolled by half the batch (`rollHalf`), so that row k is the other view; no gradient
 * @returns `loss`: mean over the 2n rows, a scalar; `accuracy`: share of the rows whose positive is the most similar
 * @throws UserError when n is odd or below 4
 */
export function ntXent(
  student: Tensor,
  teacher: Tensor,
  temperature = 0.5,
): { loss: Tensor; accuracy: Tensor } {
  const [n, c] = [student.rows, student.channels];
  if (n < 4 || n % 2) {
    throw new UserError(
      `batch: the contrastive loss compares images, so it needs an even number of views, 4 or more, not ${n}; use a batch of 2 or more`,
    );
  }
  const lib = native();
  const s = normalize(student);
  const t = normalize(teacher);
  const similarity = new Tensor(
    lib.vx_ntxent_similarity(s.handle, t.handle, n, c, temperature),
    2 * n,
    2 * n,
  );
  const loss = new Tensor(lib.vx_ntxent_loss(similarity.handle, n), 1, 1);
  record(loss, [s], (dy) => [
    new Tensor(
      lib.vx_ntxent_grad(dy.handle, similarity.handle, s.handle, t.handle, n, c, temperature),
      n,
      c,
    ),
  ]);
  return { loss, accuracy: new Tensor(lib.vx_ntxent_accuracy(similarity.handle, n), 1, 1) };
}
