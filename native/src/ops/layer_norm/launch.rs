//! The kernels of `kernel.cu` as the contract asks for them. Statistics and output come in one launch: statistics asked
//! for alone write an output that is dropped.

use crate::abi::Result;
use crate::gpu::{self, one_each, typed};
use crate::launch;
use crate::tensor::Buffer;

/// Slices of the sums over rows, about; fixed, so that the bits do not depend on the card.
const SLICES: usize = 528;

fn warps(rows: usize) -> [usize; 3] {
    [rows.div_ceil(8), 1, 1]
}

/// Mean and reciprocal deviation of each row.
pub fn statistics(c: usize, x: &Buffer, eps: f32, out: &Buffer) -> Result<()> {
    let (rows, ones, y) = (x.len / c, gpu::upload(&vec![1f32; c]), gpu::scratch::<f32>(x.len));
    let (kernel, n, width, one) = (typed("layer_norm", x.dtype), rows as i32, c as i32, ones.at());
    launch!(kernel, warps(rows), 256, 0, x.device(), one, one, n, width, eps, out.device_mut(), y.at())
}

/// y; the statistics are computed again, to the same bits.
pub fn forward(c: usize, x: &Buffer, eps: f32, gamma: &Buffer, beta: &Buffer, y: &Buffer) -> Result<()> {
    let rows = x.len / c;
    let (again, kernel) = (gpu::scratch::<f32>(2 * rows), typed("layer_norm", x.dtype));
    let (gamma, beta, n, width) = (gamma.device(), beta.device(), rows as i32, c as i32);
    launch!(kernel, warps(rows), 256, 0, x.device(), gamma, beta, n, width, eps, again.at(), y.device_mut())
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
