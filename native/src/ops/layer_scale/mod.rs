//! The end of a transformer branch: LayerScale, DropPath and the sum with the residual stream in one pass.
//!
//! Contract. x, branch, y `[rows][c]`, rows sorted by sample; gamma `[c]`; keep: one factor per sample (DropPath: 0 or
//! 1 / (1 - p); 1 without). y = x + keep[sample] * gamma * branch. Backward: dx = dy,
//! dbranch = keep[sample] * gamma * dy, dgamma = sum over rows of keep[sample] * dy * branch.

use super::rows;
use crate::abi::Result;
use crate::{queue, tensor};

/// First row of each sample, and the number of rows at the end.
fn starts(grid: u32, voxels: u32, keep: &[f32]) -> Result<Vec<usize>> {
    let starts = rows::starts(grid, voxels)?;
    if keep.len() + 1 != starts.len() {
        return Err(format!("layer scale: {} factors for {} samples", keep.len(), starts.len() - 1));
    }
    Ok(starts)
}

exports! {
    /// x + keep * gamma * branch. voxels: rows per block of the grid.
    fn vx_layer_scale(x: u32, branch: u32, gamma: u32, grid: u32, voxels: u32, c: u32, keep: slice[f32]) {
        let (starts, c) = (starts(grid, voxels, keep)?, c as usize);
        let len = starts[starts.len() - 1] * c;
        let x = tensor::get(x, len, "layer scale input")?;
        let branch = tensor::get(branch, len, "layer scale branch")?;
        let gamma = tensor::get(gamma, c, "layer scale weight")?;
        let (y, handle) = tensor::make(len);
        let keep = keep.to_vec();
        queue::enqueue(move || {
            let (x, branch, gamma) = (x.values(), branch.values(), gamma.values());
            rows::fill(&rows::pieces(&starts, c), c, y.values_mut(), |piece, y| {
                let (at, k) = (piece.rows.start * c, keep[piece.sample]);
                let inputs = x[at..].chunks_exact(c).zip(branch[at..].chunks_exact(c));
                for (y, (x, b)) in y.chunks_exact_mut(c).zip(inputs) {
                    y.iter_mut().enumerate().for_each(|(i, y)| *y = x[i] + k * gamma[i] * b[i]);
                }
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the branch.
    fn vx_layer_scale_grad_branch(dy: u32, gamma: u32, grid: u32, voxels: u32, c: u32, keep: slice[f32]) {
        let (starts, c) = (starts(grid, voxels, keep)?, c as usize);
        let len = starts[starts.len() - 1] * c;
        let dy = tensor::get(dy, len, "layer scale gradient")?;
        let gamma = tensor::get(gamma, c, "layer scale weight")?;
        let (db, handle) = tensor::make(len);
        let keep = keep.to_vec();
        queue::enqueue(move || {
            let (dy, gamma) = (dy.values(), gamma.values());
            rows::fill(&rows::pieces(&starts, c), c, db.values_mut(), |piece, db| {
                let (at, k) = (piece.rows.start * c, keep[piece.sample]);
                for (db, dy) in db.chunks_exact_mut(c).zip(dy[at..].chunks_exact(c)) {
                    db.iter_mut().enumerate().for_each(|(i, db)| *db = k * gamma[i] * dy[i]);
                }
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of gamma; sums run in row order.
    fn vx_layer_scale_grad_gamma(dy: u32, branch: u32, grid: u32, voxels: u32, c: u32, keep: slice[f32]) {
        let (starts, c) = (starts(grid, voxels, keep)?, c as usize);
        let len = starts[starts.len() - 1] * c;
        let dy = tensor::get(dy, len, "layer scale gradient")?;
        let branch = tensor::get(branch, len, "layer scale branch")?;
        let (dgamma, handle) = tensor::make(c);
        let keep = keep.to_vec();
        queue::enqueue(move || {
            let (dy, branch) = (dy.values(), branch.values());
            let sums = rows::sums(&rows::pieces(&starts, c), keep.len(), c, |piece, sums| {
                let (at, k) = (piece.rows.start * c, keep[piece.sample]);
                let inputs = dy[at..].chunks_exact(c).zip(branch[at..].chunks_exact(c));
                for (dy, b) in inputs.take(piece.rows.len()) {
                    sums.iter_mut().enumerate().for_each(|(i, s)| *s += (k * dy[i] * b[i]) as f64);
                }
            });
            for (i, value) in dgamma.values_mut().iter_mut().enumerate() {
                *value = (0..keep.len()).map(|n| sums[n * c + i]).sum::<f64>() as f32;
            }
            Ok(())
        });
        Ok(handle)
    }
}
