//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, NULL, one_each, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// Slices of the sums over rows, about; fixed, so that the bits do not depend on the card.
const SLICES: usize = 528;

fn warps(rows: usize) -> [usize; 3] {
    [rows.div_ceil(8), 1, 1]
}

/// Mean and reciprocal deviation of each row.
pub fn statistics(c: usize, x: &Buffer, eps: f32, out: &Buffer) -> Result<()> {
    let (rows, kernel, to) = (x.len / c, typed("layer_norm", x.dtype), out.device_mut());
    launch!(kernel, warps(rows), 256, 0, x.device(), NULL, NULL, rows as i32, c as i32, eps, to, NULL)
}

/// y from x and its statistics.
pub fn forward(c: usize, x: &Buffer, statistics: &Buffer, gamma: &Buffer, beta: &Buffer, y: &Buffer) -> Result<()> {
    let (rows, kernel, to) = (x.len / c, typed("layer_norm_apply", x.dtype), y.device_mut());
    let (statistics, gamma, beta) = (statistics.device(), gamma.device(), beta.device());
    launch!(kernel, over(x.len), 256, 0, x.device(), statistics, gamma, beta, rows as i32, c as i32, to)
}

/// Gradients of beta and gamma.
pub fn grad_affine(c: usize, x: &Buffer, statistics: &Buffer, dy: &Buffer, out: &Buffer) -> Result<()> {
    let (rows, lines) = (x.len / c, c.div_ceil(32));
    let slice = rows.div_ceil((SLICES / lines).max(1)).max(32);
    let slices = rows.div_ceil(slice);
    let partial = gpu::scratch::<f32>(2 * slices * c);
    let (kernel, grid) = (typed("layer_norm_grad_affine", x.dtype), [slices, lines, 1]);
    let (x, statistics, dy) = (x.device(), statistics.device(), dy.device());
    launch!(kernel, grid, 256, 2048, x, statistics, dy, rows as i32, c as i32, slice as i32, partial.at())?;
    let (slices, width) = (slices as i32, c as i32);
    launch!("layer_norm_affine_fold", one_each(2 * c), 256, 0, partial.at(), slices, width, out.device_mut())
}

/// Gradient of x.
pub fn grad_input(c: usize, x: &Buffer, statistics: &Buffer, gamma: &Buffer, dy: &Buffer, dx: &Buffer) -> Result<()> {
    let (rows, kernel) = (x.len / c, typed("layer_norm_grad_input", x.dtype));
    let (n, width, gamma, dy) = (rows as i32, c as i32, gamma.device(), dy.device());
    launch!(kernel, warps(rows), 256, 0, x.device(), statistics.device(), gamma, dy, n, width, dx.device_mut())
}
