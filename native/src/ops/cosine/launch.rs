//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, one_each, over};
use crate::launch;
use crate::tensor::Buffer;

/// Rows by their norm, or by eps where that is larger.
pub fn normalize(x: &Buffer, rows: usize, c: usize, eps: f32, y: &Buffer) -> Result<()> {
    let (grid, n, c, y) = ([rows.div_ceil(8), 1, 1], rows as i32, c as i32, y.device_mut());
    launch!("cosine_normalize", grid, 256, 0, x.device(), n, c, eps, y)
}

/// Gradient of the input of `normalize`.
pub fn normalize_grad(dy: &Buffer, x: &Buffer, rows: usize, c: usize, eps: f32, dx: &Buffer) -> Result<()> {
    let (grid, n, c, dx) = ([rows.div_ceil(8), 1, 1], rows as i32, c as i32, dx.device_mut());
    launch!("cosine_normalize_grad", grid, 256, 0, dy.device(), x.device(), n, c, eps, dx)
}

/// offset + factor * <a, b>.
pub fn dot(a: &Buffer, b: &Buffer, offset: f64, factor: f64, y: &Buffer) -> Result<()> {
    let grid = [over(a.len)[0].min(256), 1, 1];
    let partial = gpu::scratch::<f32>(grid[0]);
    launch!("cosine_dot", grid, 256, 32, a.device(), b.device(), a.len as i64, partial.at())?;
    launch!("cosine_dot_fold", [1; 3], 32, 0, partial.at(), grid[0] as i32, offset, factor, y.device_mut())
}

/// factor * scalar * x.
pub fn scale_by(scalar: &Buffer, factor: f64, x: &Buffer, y: &Buffer) -> Result<()> {
    let (n, factor, y) = (x.len as i64, factor as f32, y.device_mut());
    launch!("cosine_scale", over(x.len), 256, 0, scalar.device(), factor, x.device(), n, y)
}

/// The second half of the values, then the first.
pub fn swap_halves(x: &Buffer, y: &Buffer) -> Result<()> {
    launch!("cosine_swap", over(x.len), 256, 0, x.device(), x.len as i64, y.device_mut())
}

/// How evenly unit rows point.
pub fn spread(y: &Buffer, rows: usize, c: usize, out: &Buffer) -> Result<()> {
    let deviations = gpu::scratch::<f32>(c);
    launch!("cosine_deviations", one_each(c), 256, 0, y.device(), rows as i32, c as i32, deviations.at())?;
    let factor = 1.0 / (c as f64).sqrt();
    launch!("cosine_dot_fold", [1; 3], 32, 0, deviations.at(), c as i32, 0f64, factor, out.device_mut())
}
