//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, At, NULL, over};
use crate::launch;
use crate::tensor::{Buffer, Tensor};

fn place(weight: &Option<Tensor>) -> At {
    weight.as_ref().map_or(NULL, |w| w.device())
}

/// The loss and its denominator.
pub fn forward(y: &Buffer, target: &Buffer, weight: &Option<Tensor>, c: u32, kind: u32, out: &Buffer) -> Result<()> {
    let rows = y.len / c as usize;
    let blocks = over(rows)[0].min(1024);
    let partial = gpu::scratch::<f32>(2 * blocks);
    let (y, target, weight, kind) = (y.device(), target.device(), place(weight), kind as i32);
    let (rows, c, grid) = (rows as i32, c as i32, [blocks, 1, 1]);
    launch!("reconstruction_sums", grid, 256, 64, y, target, weight, rows, c, kind, partial.at())?;
    launch!("reconstruction_fold", [1; 3], 32, 0, partial.at(), blocks as i32, c, out.device_mut())
}

/// Gradient of y from that of the loss.
pub fn gradient(
    [dloss, result, y, target]: [&Buffer; 4],
    weight: &Option<Tensor>,
    c: u32,
    kind: u32,
    dy: &Buffer,
) -> Result<()> {
    let (rows, c, kind, to) = ((y.len / c as usize) as i32, c as i32, kind as i32, dy.device_mut());
    let (grid, weight) = (over(y.len), place(weight));
    let (dloss, result, y, target) = (dloss.device(), result.device(), y.device(), target.device());
    launch!("reconstruction_grad", grid, 256, 0, dloss, result, y, target, weight, rows, c, kind, to)
}
