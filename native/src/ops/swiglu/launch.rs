//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// silu(gate) * value.
pub fn forward(gate: &Buffer, value: &Buffer, y: &Buffer) -> Result<()> {
    let (kernel, n) = (typed("swiglu", gate.dtype), gate.len as i64);
    launch!(kernel, over(gate.len), 256, 0, gate.device(), value.device(), n, y.device_mut())
}

/// Gradient of the gate; the kernel's other gradient is dropped.
pub fn grad_gate(gate: &Buffer, value: &Buffer, dy: &Buffer, dgate: &Buffer) -> Result<()> {
    let (kernel, n, other) = (typed("swiglu_grad", gate.dtype), gate.len as i64, gpu::scratch::<f32>(gate.len));
    let (g, v, dy) = (gate.device(), value.device(), dy.device());
    launch!(kernel, over(gate.len), 256, 0, g, v, dy, n, dgate.device_mut(), other.at())
}
