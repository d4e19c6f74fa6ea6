//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, Piece, Slices, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// First row of each sample, and the factors of the samples.
fn tables(starts: &[usize], keep: &[f32]) -> (Piece, Piece) {
    (gpu::upload(&starts.iter().map(|&s| s as i32).collect::<Vec<_>>()), gpu::upload(keep))
}

/// x + keep * gamma * branch.
pub fn forward(starts: &[usize], keep: &[f32], gamma: &Buffer, x: &Buffer, branch: &Buffer, y: &Buffer) -> Result<()> {
    let (starts, factors) = tables(starts, keep);
    let (kernel, n, c) = (typed("layer_scale", x.dtype), keep.len() as i32, gamma.len as i32);
    let (gamma, x, branch, to) = (gamma.device(), x.device(), branch.device(), y.device_mut());
    launch!(kernel, over(y.len), 256, 0, starts.at(), n, c, factors.at(), gamma, x, branch, to)
}

/// Gradient of the branch.
pub fn grad_branch(starts: &[usize], keep: &[f32], gamma: &Buffer, dy: &Buffer, db: &Buffer) -> Result<()> {
    let (starts, factors) = tables(starts, keep);
    let (kernel, n, c) = (typed("layer_scale_grad_branch", dy.dtype), keep.len() as i32, gamma.len as i32);
    let (gamma, dy, to) = (gamma.device(), dy.device(), db.device_mut());
    launch!(kernel, over(db.len), 256, 0, starts.at(), n, c, factors.at(), gamma, dy, to)
}

/// Gradient of gamma.
pub fn grad_gamma(starts: &[usize], keep: &[f32], dy: &Buffer, branch: &Buffer, dgamma: &Buffer) -> Result<()> {
    let (rows, c) = (starts[keep.len()], dgamma.len);
    let slices = Slices::new(rows, c, dy.dtype, 1, 1);
    let ((starts, factors), partial) = (tables(starts, keep), gpu::scratch::<f32>(slices.count * c));
    let (kernel, grid, shared) = (typed("layer_scale_grad_gamma", dy.dtype), slices.grid(), slices.shared);
    let (n, width, dy, branch) = (keep.len() as i32, c as i32, dy.device(), branch.device());
    launch!(kernel, grid, 256, shared, starts.at(), n, slices.rows, width, factors.at(), dy, branch, partial.at())?;
    let count = slices.count as i32;
    launch!("layer_scale_fold", gpu::fold(c), 256, 0, partial.at(), count, width, dgamma.device_mut())
}
