//! The end of a transformer branch: LayerScale, DropPath and the sum with the residual stream in one pass.
//!
//! Contract. x, branch, y `[rows][c]`, f32 or bf16, rows sorted by sample; gamma `[c]`; keep: one factor per sample (DropPath: 0 or
//! 1 / (1 - p); 1 without). y = x + keep[sample] * gamma * branch. Backward: dx = dy,
//! dbranch = keep[sample] * gamma * dy, dgamma = sum over rows of keep[sample] * dy * branch.

pub mod launch;

use super::rows;
use crate::abi::Result;
use crate::element::Element;
use crate::wide;
use crate::{gpu, queue, tensor};

/// First row of each sample, and the number of rows at the end.
fn starts(grid: u32, voxels: u32, keep: &[f32]) -> Result<Vec<usize>> {
    let starts = rows::starts(grid, voxels)?;
    if keep.len() + 1 != starts.len() {
        return Err(format!("layer scale: {} factors for {} samples", keep.len(), starts.len() - 1));
    }
    Ok(starts)
}

wide! {
    /// x + factor * branch, row by row.
    fn add_scaled<E: Element>(x: &[E], branch: &[E], factor: &[f32], y: &mut [E]) {
        let c = factor.len();
        let inputs = x.chunks_exact(c).zip(branch.chunks_exact(c));
        for (y, (x, b)) in y.chunks_exact_mut(c).zip(inputs) {
            for i in 0..c {
                y[i] = E::from_f32(x[i].to_f32() + factor[i] * b[i].to_f32());
            }
        }
    }
}

wide! {
    /// factor * dy, row by row.
    fn scaled<E: Element>(dy: &[E], factor: &[f32], db: &mut [E]) {
        let c = factor.len();
        for (db, dy) in db.chunks_exact_mut(c).zip(dy.chunks_exact(c)) {
            for i in 0..c {
                db[i] = E::from_f32(factor[i] * dy[i].to_f32());
            }
        }
    }
}

wide! {
    /// Adds k * dy * branch, row by row.
    fn add_products<E: Element>(dy: &[E], branch: &[E], k: f32, sums: &mut [f64]) {
        let c = sums.len();
        for (dy, b) in dy.chunks_exact(c).zip(branch.chunks_exact(c)) {
            for i in 0..c {
                sums[i] += (k * dy[i].to_f32() * b[i].to_f32()) as f64;
            }
        }
    }
}

/// keep * gamma of each sample.
fn factors(keep: &[f32], gamma: &[f32]) -> Vec<Vec<f32>> {
    keep.iter().map(|k| gamma.iter().map(|g| k * g).collect()).collect()
}

exports! {
    /// x + keep * gamma * branch. voxels: rows per block of the grid.
    fn vx_layer_scale(x: u32, branch: u32, gamma: u32, grid: u32, voxels: u32, c: u32, keep: slice[f32]) {
        let (starts, c) = (starts(grid, voxels, keep)?, c as usize);
        let len = starts[starts.len() - 1] * c;
        let x = tensor::either(x, len, "layer scale input")?;
        let branch = tensor::get_as(branch, len, "layer scale branch", x.dtype)?;
        let gamma = tensor::get(gamma, c, "layer scale weight")?;
        let (y, handle) = tensor::make_as(len, x.dtype);
        let keep = keep.to_vec();
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&starts, &keep, &gamma, &x, &branch, &y);
            }
            let factors = factors(&keep, gamma.values());
            by_dtype!(x.dtype, E => rows::fill(&rows::pieces(&starts, c), c, y.of_mut::<E>(), |piece, y| {
                let at = piece.rows.start * c..piece.rows.end * c;
                add_scaled(&x.of::<E>()[at.clone()], &branch.of::<E>()[at], &factors[piece.sample], y);
            }));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the branch.
    fn vx_layer_scale_grad_branch(dy: u32, gamma: u32, grid: u32, voxels: u32, c: u32, keep: slice[f32]) {
        let (starts, c) = (starts(grid, voxels, keep)?, c as usize);
        let len = starts[starts.len() - 1] * c;
        let dy = tensor::either(dy, len, "layer scale gradient")?;
        let gamma = tensor::get(gamma, c, "layer scale weight")?;
        let (db, handle) = tensor::make_as(len, dy.dtype);
        let keep = keep.to_vec();
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_branch(&starts, &keep, &gamma, &dy, &db);
            }
            let factors = factors(&keep, gamma.values());
            by_dtype!(dy.dtype, E => rows::fill(&rows::pieces(&starts, c), c, db.of_mut::<E>(), |piece, db| {
                scaled(&dy.of::<E>()[piece.rows.start * c..piece.rows.end * c], &factors[piece.sample], db);
            }));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of gamma; sums run in row order.
    fn vx_layer_scale_grad_gamma(dy: u32, branch: u32, grid: u32, voxels: u32, c: u32, keep: slice[f32]) {
        let (starts, c) = (starts(grid, voxels, keep)?, c as usize);
        let len = starts[starts.len() - 1] * c;
        let dy = tensor::either(dy, len, "layer scale gradient")?;
        let branch = tensor::get_as(branch, len, "layer scale branch", dy.dtype)?;
        let (dgamma, handle) = tensor::make(c);
        let keep = keep.to_vec();
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_gamma(&starts, &keep, &dy, &branch, &dgamma);
            }
            let sums = by_dtype!(dy.dtype, E => {
                rows::sums(&rows::pieces(&starts, c), keep.len(), c, |piece, sums| {
                    let at = piece.rows.start * c..piece.rows.end * c;
                    add_products(&dy.of::<E>()[at.clone()], &branch.of::<E>()[at], keep[piece.sample], sums);
                })
            });
            for (i, value) in dgamma.values_mut().iter_mut().enumerate() {
                *value = (0..keep.len()).map(|n| sums[n * c + i]).sum::<f64>() as f32;
            }
            Ok(())
        });
        Ok(handle)
    }
}
