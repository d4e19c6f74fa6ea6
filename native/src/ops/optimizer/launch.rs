//! The kernels of `kernel.cu` as the contract asks for them.

use super::cpu::{AdamW, Sgd};
use crate::abi::Result;
use crate::gpu::{self, At, NULL, Piece, over};
use crate::launch;
use crate::tensor::{Buffer, Tensor};

/// Values that one block squares.
const STRETCH: usize = 1 << 16;
/// Bytes of `Step` of kernel.cu.
const STEP: usize = 16;

/// Norm over all values of all tensors.
pub fn global_norm(tensors: &[Tensor], norm: &Buffer) -> Result<()> {
    let stretches: Vec<usize> = tensors.iter().map(|t| t.len.div_ceil(STRETCH)).collect();
    let count: usize = stretches.iter().sum();
    let partial = gpu::scratch::<f64>(count);
    let mut to = partial.at();
    for (tensor, &blocks) in tensors.iter().zip(&stretches) {
        let (grid, len) = ([blocks, 1, 1], tensor.len as i64);
        launch!("optimizer_squares", grid, 256, 2048, tensor.device(), len, STRETCH as i32, to)?;
        to = At(to.0 + 8 * blocks as u64);
    }
    launch!("optimizer_norm", [1; 3], 32, 0, partial.at(), count as i32, norm.device_mut())
}

/// Turns the norm into the factor of one update; `steps` counts those of AdamW.
fn begin(norm: &Buffer, clip: f32, steps: At, lr: f64, [beta1, beta2]: [f64; 2]) -> Result<Piece> {
    let step = gpu::scratch::<u8>(STEP);
    launch!("optimizer_begin", [1; 3], 32, 0, norm.device(), clip, steps, lr, beta1, beta2, step.at())?;
    Ok(step)
}

/// As `cpu::sgd`, clipped.
pub fn sgd(rule: &Sgd, norm: &Buffer, clip: f32, parameter: &Buffer, gradient: &Buffer, state: &Buffer) -> Result<()> {
    let step = begin(norm, clip, NULL, 0.0, [0.0; 2])?;
    let &Sgd { lr, momentum, nesterov, weight_decay } = rule;
    let (n, grid) = (parameter.len as i64, over(parameter.len));
    let (g, p, m) = (gradient.device(), parameter.device_mut(), state.device_mut());
    launch!("optimizer_sgd", grid, 256, 0, step.at(), lr, momentum, nesterov as i32, weight_decay, n, g, p, m)
}

/// As `cpu::adamw`, clipped; the state: first and second moment, largest second moment, count of steps.
pub fn adamw(
    rule: &AdamW,
    norm: &Buffer,
    clip: f32,
    parameter: &Buffer,
    gradient: &Buffer,
    (first, second, largest, steps): (&Buffer, &Buffer, &Option<Tensor>, &Buffer),
) -> Result<()> {
    let &AdamW { lr, beta1, beta2, eps, weight_decay } = rule;
    let step = begin(norm, clip, steps.device_mut(), lr, [beta1, beta2])?;
    let [keep1, take1, keep2, take2] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(|v| v as f32);
    let (decay, eps, n, grid) =
        ((1.0 - lr * weight_decay) as f32, eps as f32, parameter.len as i64, over(parameter.len));
    let (g, p) = (gradient.device(), parameter.device_mut());
    let (first, second) = (first.device_mut(), second.device_mut());
    let largest = largest.as_ref().map_or(NULL, |t| t.device_mut());
    let at = step.at();
    launch!(
        "optimizer_adamw",
        grid,
        256,
        0,
        at,
        keep1,
        take1,
        keep2,
        take2,
        decay,
        eps,
        n,
        g,
        p,
        first,
        second,
        largest
    )
}

/// As `cpu::ema`.
pub fn ema(teacher: &Buffer, student: &Buffer, momentum: f64) -> Result<()> {
    let (keep, take, n, grid) = (momentum as f32, (1.0 - momentum) as f32, teacher.len as i64, over(teacher.len));
    if momentum == 0.0 {
        return gpu::copy(student.device(), teacher.device_mut(), 4 * teacher.len);
    }
    launch!("optimizer_ema", grid, 256, 0, keep, take, n, student.device(), teacher.device_mut())
}
