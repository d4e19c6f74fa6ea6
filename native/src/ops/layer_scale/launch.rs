//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, Piece, one_each, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// Slices of the sums over rows, about; fixed, so that the bits do not depend on the card.
const SLICES: usize = 528;

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
    let slice = rows.div_ceil((SLICES / c.div_ceil(32)).max(1)).max(32);
    let slices = rows.div_ceil(slice);
    let ((starts, factors), partial) = (tables(starts, keep), gpu::scratch::<f32>(slices * c));
    let (kernel, grid) = (typed("layer_scale_grad_gamma", dy.dtype), [slices, 1, c.div_ceil(32)]);
    let (n, slice, width, dy, branch) = (keep.len() as i32, slice as i32, c as i32, dy.device(), branch.device());
    launch!(kernel, grid, 256, 1024, starts.at(), n, slice, width, factors.at(), dy, branch, partial.at())?;
    launch!("layer_scale_fold", one_each(c), 256, 0, partial.at(), slices as i32, width, dgamma.device_mut())
}
