/** Element-wise nonlinearities. */
import { record } from "../autograd.ts";
import { native } from "../native/library.ts";
import { Tensor } from "../tensor.ts";

/** x where x > 0, else slope * x; slope from 0 on. */
export function leakyRelu(x: Tensor, slope = 0.01): Tensor {
  if (slope < 0) throw new Error(`leakyRelu: slope ${slope} is below 0`);
  const n = native();
  const like = (handle: number) => new Tensor(handle, x.rows, x.channels, x.layout);
  const y = like(n.vx_leaky(x.handle, x.length, slope));
  return record(y, [x], (dy) => [like(n.vx_leaky_grad(y.handle, dy.handle, x.length, slope))]);
}

/** x / (1 + exp(-x)). */
export function silu(x: Tensor): Tensor {
  const n = native();
  const like = (handle: number) => new Tensor(handle, x.rows, x.channels, x.layout);
  return record(
    like(n.vx_silu(x.handle, x.length)),
    [x],
    (dy) => [like(n.vx_silu_grad(x.handle, dy.handle, x.length))],
  );
}

/** x * P(x), P the normal distribution function (the exact, erf form). */
export function gelu(x: Tensor): Tensor {
  const n = native();
  const like = (handle: number) => new Tensor(handle, x.rows, x.channels, x.layout);
  return record(
    like(n.vx_gelu(x.handle, x.length)),
    [x],
    (dy) => [like(n.vx_gelu_grad(x.handle, dy.handle, x.length))],
  );
}

/** silu(gate) * value, of one shape: the gated unit of SwiGLU. May be dropped. */
export function swiglu(gate: Tensor, value: Tensor): Tensor {
  if (gate.rows !== value.rows || gate.channels !== value.channels) {
    throw new Error("swiglu: the shapes differ");
  }
  const n = native();
  const like = (handle: number | (() => number)) => new Tensor(handle, gate.rows, gate.channels, gate.layout);
  const length = gate.length;
  return record(like(() => n.vx_swiglu(gate.handle, value.handle, length)), [gate, value], (dy) => [
    like(n.vx_swiglu_grad_gate(gate.handle, value.handle, dy.handle, length)),
    like(n.vx_swiglu(gate.handle, dy.handle, length)),
  ]);
}
