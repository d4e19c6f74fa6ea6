/** Change of storage type. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { type Dtype, dtypeNumber, Tensor } from "../tensor.ts";

/**
 * x in storage type `dtype`, rounded to nearest even; x itself where it has that type. The gradient comes back in the
 * type of x.
 */
export function cast(x: Tensor, dtype: Dtype): Tensor {
  if (x.dtype === dtype) return x;
  const to = (from: Tensor, type: Dtype) =>
    new Tensor(native().vx_tensor_cast(from.handle, dtypeNumber(type)), x.rows, x.channels, x.layout);
  return record(to(x, dtype), [x], (dy) => [to(dy, x.dtype)]);
}
