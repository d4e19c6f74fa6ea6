//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, Piece, over, typed};
use crate::launch;
use crate::tensor::Buffer;

fn table(starts: &[usize]) -> Piece {
    gpu::upload(&starts.iter().map(|&s| s as i32).collect::<Vec<_>>())
}

/// Softmax of the scores over the rows of each sample.
pub fn softmax(starts: &[usize], scores: &Buffer, weights: &Buffer) -> Result<()> {
    let (grid, starts) = ([starts.len() - 1, 1, 1], table(starts));
    launch!("softmax_rows", grid, 256, 32, starts.at(), scores.device(), weights.device_mut())
}

/// Sum of the rows of each sample by their weights.
pub fn sum(starts: &[usize], c: usize, x: &Buffer, weights: &Buffer, y: &Buffer) -> Result<()> {
    let (kernel, grid) = (typed("weighted_sum", x.dtype), [1, starts.len() - 1, c.div_ceil(32)]);
    let starts = table(starts);
    launch!(kernel, grid, 256, 1024, starts.at(), c as i32, x.device(), weights.device(), y.device_mut())
}

/// Gradient of `sum` to x.
pub fn sum_grad(starts: &[usize], c: usize, dy: &Buffer, weights: &Buffer, dx: &Buffer) -> Result<()> {
    let (kernel, samples, starts) = (typed("weighted_sum_grad", dx.dtype), starts.len() as i32 - 1, table(starts));
    let (dy, weights, to) = (dy.device(), weights.device(), dx.device_mut());
    launch!(kernel, over(dx.len), 256, 0, starts.at(), samples, c as i32, dy, weights, to)
}

/// Gradient to the scores; dy, x, y.
pub fn scores_grad(starts: &[usize], c: usize, [dy, x, y]: [&Buffer; 3], weights: &Buffer, ds: &Buffer) -> Result<()> {
    let kernel = typed("softmax_pool_grad_scores", x.dtype);
    let (grid, samples, starts) = ([ds.len.div_ceil(8), 1, 1], starts.len() as i32 - 1, table(starts));
    let (dy, x, y, weights, to) = (dy.device(), x.device(), y.device(), weights.device(), ds.device_mut());
    launch!(kernel, grid, 256, 0, starts.at(), samples, c as i32, dy, x, y, weights, to)
}
