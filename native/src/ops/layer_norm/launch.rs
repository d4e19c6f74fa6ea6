//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, NULL, Slices, over, typed};
use crate::launch;
use crate::tensor::Buffer;

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
    let rows = x.len / c;
    let slices = Slices::new(rows, c, x.dtype, 2, 1);
    let (partial, kernel) = (gpu::scratch::<f32>(2 * slices.count * c), typed("layer_norm_grad_affine", x.dtype));
    let (x, statistics, dy, n, width) = (x.device(), statistics.device(), dy.device(), rows as i32, c as i32);
    let (grid, shared, count) = (slices.grid(), slices.shared, slices.count as i32);
    launch!(kernel, grid, 256, shared, x, statistics, dy, n, width, slices.rows, partial.at())?;
    launch!("layer_norm_affine_fold", gpu::fold(2 * c), 256, 0, partial.at(), count, width, out.device_mut())
}

/// Gradient of x.
pub fn grad_input(c: usize, x: &Buffer, statistics: &Buffer, gamma: &Buffer, dy: &Buffer, dx: &Buffer) -> Result<()> {
    let (rows, kernel) = (x.len / c, typed("layer_norm_grad_input", x.dtype));
    let (n, width, gamma, dy) = (rows as i32, c as i32, gamma.device(), dy.device());
    launch!(kernel, warps(rows), 256, 0, x.device(), statistics.device(), gamma, dy, n, width, dx.device_mut())
}
