//! A weighted mean of the rows of each sample.
//!
//! Contract. x `[rows][c]`, f32 or bf16, scores `[rows]`, f32, rows sorted by sample. weights a = softmax of the scores over the
//! rows of a sample; y `[samples][c]` = sum of a x. dx = a dy; d scores = a (dy . x - dy . y). Sums in f64.

pub mod launch;

use super::rows;
use crate::element::{Dtype, Element};
use crate::{gpu, queue, tensor};
use rayon::prelude::*;

fn dot<E: Element>(p: &[f32], q: &[E]) -> f64 {
    p.iter().zip(q).map(|(&p, q)| f64::from(p) * f64::from(q.to_f32())).sum()
}

exports! {
    /// Softmax of the scores over the rows of each sample. voxels: rows per block.
    fn vx_softmax_rows(scores: u32, grid: u32, voxels: u32) {
        let starts = rows::starts(grid, voxels)?;
        let len = starts[starts.len() - 1];
        let scores = tensor::get(scores, len, "pooling scores")?;
        let (weights, handle) = tensor::make(len);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::softmax(&starts, &scores, &weights);
            }
            let (s, a) = (scores.values(), weights.values_mut());
            for span in starts.windows(2) {
                let (s, a) = (&s[span[0]..span[1]], &mut a[span[0]..span[1]]);
                let most = s.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
                let total: f64 = s.iter().map(|&v| f64::from(v - most).exp()).sum();
                a.iter_mut().zip(s).for_each(|(a, &v)| *a = (f64::from(v - most).exp() / total) as f32);
            }
            Ok(())
        });
        Ok(handle)
    }
    /// Sum of the rows of each sample by their weights: `[samples][c]`.
    fn vx_weighted_sum(x: u32, weights: u32, grid: u32, voxels: u32, c: u32) {
        let (starts, c) = (rows::starts(grid, voxels)?, c as usize);
        let samples = starts.len() - 1;
        let x = tensor::either(x, starts[samples] * c, "pooling input")?;
        let weights = tensor::get(weights, starts[samples], "pooling weights")?;
        let (y, handle) = tensor::make(samples * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::sum(&starts, c, &x, &weights, &y);
            }
            let a = weights.values();
            let sums = by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                rows::sums(&rows::pieces(&starts, c), samples, c, |piece, sum| {
                    for row in piece.rows.clone() {
                        let weight = f64::from(a[row]);
                        sum.iter_mut().zip(&x[row * c..]).for_each(|(s, v)| *s += weight * v.to_f32() as f64);
                    }
                })
            });
            y.values_mut().iter_mut().zip(sums).for_each(|(y, sum)| *y = sum as f32);
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of `vx_weighted_sum` to x, whose type is `dtype`.
    fn vx_weighted_sum_grad(dy: u32, weights: u32, grid: u32, voxels: u32, c: u32, dtype: u32) {
        let (starts, c) = (rows::starts(grid, voxels)?, c as usize);
        let samples = starts.len() - 1;
        let dy = tensor::get(dy, samples * c, "pooling output gradient")?;
        let weights = tensor::get(weights, starts[samples], "pooling weights")?;
        let (dx, handle) = tensor::make_as(starts[samples] * c, Dtype::parse(dtype)?);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::sum_grad(&starts, c, &dy, &weights, &dx);
            }
            let (dy, a) = (dy.values(), weights.values());
            by_dtype!(dx.dtype, E => rows::fill(&rows::pieces(&starts, c), c, dx.of_mut::<E>(), |piece, dx| {
                for (dx, row) in dx.chunks_exact_mut(c).zip(piece.rows.clone()) {
                    let dy = &dy[piece.sample * c..];
                    dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = E::from_f32(a[row] * dy));
                }
            }));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of softmax and weighted sum to the scores.
    fn vx_softmax_pool_grad_scores(dy: u32, x: u32, y: u32, weights: u32, grid: u32, voxels: u32, c: u32) {
        let (starts, c) = (rows::starts(grid, voxels)?, c as usize);
        let samples = starts.len() - 1;
        let dy = tensor::get(dy, samples * c, "pooling output gradient")?;
        let x = tensor::either(x, starts[samples] * c, "pooling input")?;
        let y = tensor::get(y, samples * c, "pooling output")?;
        let weights = tensor::get(weights, starts[samples], "pooling weights")?;
        let (ds, handle) = tensor::make(starts[samples]);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::scores_grad(&starts, c, [&dy, &x, &y], &weights, &ds);
            }
            by_dtype!(x.dtype, E => {
                let (dy, x, y, a) = (dy.values(), x.of::<E>(), y.values(), weights.values());
                for (n, span) in starts.windows(2).enumerate() {
                    let (dy, y) = (&dy[n * c..][..c], &y[n * c..][..c]);
                    let mean = dot(dy, y);
                    ds.values_mut()[span[0]..span[1]].par_iter_mut().enumerate().for_each(|(i, ds)| {
                        let row = span[0] + i;
                        *ds = (f64::from(a[row]) * (dot(dy, &x[row * c..][..c]) - mean)) as f32;
                    });
                }
            });
            Ok(())
        });
        Ok(handle)
    }
}
