//! Instance normalisation over the visible voxels of each sample, with affine, residual and LeakyReLU fused.
//!
//! Contract. x, residual, y `[block][z][y][x][c]` on one grid; gamma, beta `[c]`.
//! mean, variance (biased): per sample and channel over the voxels of that sample's listed blocks only, so that hidden
//! voxels count neither as values nor in the number (sparse instance norm of S3D).
//! xhat = (x - mean) / sqrt(variance + eps); v = gamma * xhat + beta + residual; y = v where v > 0, else slope * v;
//! slope 1 is no activation.
//! Backward, with g the gradient of v: dgamma = sum g * xhat, dbeta = sum g (over samples too), dresidual = g,
//! dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)), means over the sample. g is dy where y > 0, else
//! slope * dy.

pub mod cpu;
pub mod later;
pub mod launch;
pub mod passes;
pub mod reference;

use super::rows;
use crate::abi::Result;
use crate::element::Dtype;
use crate::tensor::{self, Tensor};
use crate::{gpu, queue};
use later::Later;
use std::sync::atomic::Ordering::Relaxed;

/// Shape: first row of each sample (and the number of rows at the end), channels.
#[derive(Clone, Debug)]
pub struct Shape {
    pub starts: Vec<usize>,
    pub c: usize,
}

impl Shape {
    /// `voxels`: rows per block; grid 0 is one sample of `voxels` rows.
    fn new(grid: u32, voxels: u32, c: u32) -> Result<Shape> {
        let starts = rows::starts(grid, voxels)?;
        if c == 0 {
            return Err("norm: the tensor has no channels".into());
        }
        if let Some(n) = starts.windows(2).position(|s| s[1] - s[0] < 2) {
            let count = starts[n + 1] - starts[n];
            return Err(format!(
                "norm: patch {n} of the batch has {count} visible voxel(s) at this stage and its variance needs 2; \
                 use a larger patch or hide fewer blocks"
            ));
        }
        Ok(Shape { starts, c: c as usize })
    }
    pub fn samples(&self) -> usize {
        self.starts.len() - 1
    }
    pub fn len(&self) -> usize {
        self.starts[self.samples()] * self.c
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn statistics_len(&self) -> usize {
        2 * self.samples() * self.c
    }
}

fn optional(handle: u32, len: usize, what: &str, dtype: Dtype) -> Result<Option<Tensor>> {
    if handle == 0 { Ok(None) } else { tensor::get_as(handle, len, what, dtype).map(Some) }
}

exports! {
    /// Whether norms without residual that follow may leave their values to the convolutions that read them, on a GPU.
    fn vx_norm_on_load(on: bool) {
        queue::enqueue(move || { later::ON.store(on, Relaxed); Ok(()) });
        Ok(0.0)
    }
    /// Mean and 1 / sqrt(variance + eps) of each sample and channel: `[2][samples][c]`. voxels: rows per block.
    fn vx_norm_statistics(x: u32, grid: u32, voxels: u32, c: u32, eps: f32) {
        let s = Shape::new(grid, voxels, c)?;
        let x = tensor::either(x, s.len(), "norm input")?;
        let (out, handle) = tensor::make(s.statistics_len());
        queue::enqueue(move || {
            if gpu::active() {
                return launch::statistics(&s, &x, eps, &out);
            }
            by_dtype!(x.dtype, E => cpu::statistics(&s, x.of::<E>(), x.sums(&s.starts), eps, out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// y from x and its statistics; gamma, beta, residual 0 mean none, slope 1 no activation.
    fn vx_norm(x: u32, statistics: u32, gamma: u32, beta: u32, residual: u32, grid: u32, voxels: u32, c: u32, slope: f32) {
        let s = Shape::new(grid, voxels, c)?;
        let x = tensor::either(x, s.len(), "norm input")?;
        let statistics = tensor::get(statistics, s.statistics_len(), "norm statistics")?;
        let gamma = optional(gamma, s.c, "norm weight", Dtype::F32)?;
        let beta = optional(beta, s.c, "norm bias", Dtype::F32)?;
        let residual = optional(residual, s.len(), "norm residual", x.dtype)?;
        let (y, handle) = tensor::make_as(s.len(), x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                if residual.is_none() && later::takes(&s, x.dtype) {
                    y.put_off(Later { shape: s, x, statistics, gamma, beta, slope });
                    return Ok(());
                }
                return launch::apply(&s, &x, &statistics, [&gamma, &beta, &residual], slope, y.device_mut());
            }
            let affine = [&gamma, &beta].map(|t| t.as_ref().map(|t| t.values()));
            by_dtype!(x.dtype, E => {
                let residual = residual.as_ref().map(|t| t.of::<E>());
                cpu::forward(&s, x.of::<E>(), statistics.values(), affine, residual, slope, y.of_mut())
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Sums of g and of g * xhat per sample and channel: `[2][samples][c]`. Where slope is not 1, there was no residual:
    /// the sign of y is that of what x gives.
    fn vx_norm_grad_sums(x: u32, dy: u32, statistics: u32, gamma: u32, beta: u32, grid: u32, voxels: u32, c: u32, slope: f32) {
        let s = Shape::new(grid, voxels, c)?;
        let x = tensor::either(x, s.len(), "norm input")?;
        let dy = tensor::get_as(dy, s.len(), "norm output gradient", x.dtype)?;
        let statistics = tensor::get(statistics, s.statistics_len(), "norm statistics")?;
        let gamma = optional(gamma, s.c, "norm weight", Dtype::F32)?;
        let beta = optional(beta, s.c, "norm bias", Dtype::F32)?;
        let (out, handle) = tensor::make(s.statistics_len());
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_sums(&s, [&x, &dy], &statistics, [&gamma, &beta], slope, &out);
            }
            let affine = [&gamma, &beta].map(|t| t.as_ref().map(|t| t.values()));
            by_dtype!(x.dtype, E => {
                cpu::grad_sums(&s, x.of::<E>(), dy.of(), statistics.values(), affine, slope, out.values_mut())
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Of a norm with residual and activation: g, as long as x, and its sums, as of `vx_norm_grad_sums`, in one pass; writes the
    /// handles of both. What follows takes g for dy, with slope 1.
    fn vx_norm_grad_inner(x: u32, y: u32, dy: u32, statistics: u32, grid: u32, voxels: u32, c: u32, slope: f32, handles: slice_mut[u32]) {
        let s = Shape::new(grid, voxels, c)?;
        let x = tensor::either(x, s.len(), "norm input")?;
        let y = tensor::get_as(y, s.len(), "norm output", x.dtype)?;
        let dy = tensor::get_as(dy, s.len(), "norm output gradient", x.dtype)?;
        let statistics = tensor::get(statistics, s.statistics_len(), "norm statistics")?;
        if handles.len() != 2 {
            return Err("norm: two handles are written".into());
        }
        let (inner, first) = tensor::make_as(s.len(), x.dtype);
        let (sums, second) = tensor::make(s.statistics_len());
        handles.copy_from_slice(&[first as u32, second as u32]);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_inner(&s, [&x, &y, &dy], &statistics, slope, &inner, &sums);
            }
            by_dtype!(x.dtype, E => {
                let of = [&x, &y, &dy].map(|t| t.of::<E>());
                cpu::grad_inner(&s, of, statistics.values(), slope, inner.of_mut(), sums.values_mut())
            });
            Ok(())
        });
        Ok(0.0)
    }
    /// Gradient of x from the sums of `vx_norm_grad_sums`.
    fn vx_norm_grad_input(x: u32, dy: u32, statistics: u32, sums: u32, gamma: u32, beta: u32, grid: u32, voxels: u32, c: u32, slope: f32) {
        let s = Shape::new(grid, voxels, c)?;
        let x = tensor::either(x, s.len(), "norm input")?;
        let dy = tensor::get_as(dy, s.len(), "norm output gradient", x.dtype)?;
        let statistics = tensor::get(statistics, s.statistics_len(), "norm statistics")?;
        let sums = tensor::get(sums, s.statistics_len(), "norm gradient sums")?;
        let gamma = optional(gamma, s.c, "norm weight", Dtype::F32)?;
        let beta = optional(beta, s.c, "norm bias", Dtype::F32)?;
        let (dx, handle) = tensor::make_as(s.len(), x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_input(&s, [&x, &dy], &statistics, &sums, [&gamma, &beta], slope, &dx);
            }
            let affine = [&gamma, &beta].map(|t| t.as_ref().map(|t| t.values()));
            let (statistics, sums) = (statistics.values(), sums.values());
            by_dtype!(x.dtype, E => {
                cpu::grad_input(&s, x.of::<E>(), dy.of(), statistics, sums, affine, slope, dx.of_mut())
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of beta (half 0) or gamma (half 1): that half of the sums, added over the samples.
    fn vx_norm_grad_affine(sums: u32, half: u32, samples: u32, c: u32) {
        let (samples, c, half) = (samples as usize, c as usize, half.min(1) as usize);
        let sums = tensor::get(sums, 2 * samples * c, "norm gradient sums")?;
        let (out, handle) = tensor::make(c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_affine(&sums, half, samples, &out);
            }
            let part = &sums.values()[half * samples * c..][..samples * c];
            for (i, value) in out.values_mut().iter_mut().enumerate() {
                *value = (0..samples).map(|n| part[n * c + i] as f64).sum::<f64>() as f32;
            }
            Ok(())
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_path_equals_the_loop_nest() {
        for (starts, c) in [(vec![0, 5, 12], 3), (vec![0, 3000, 3500], 20)] {
            let s = Shape { starts, c };
            let wave = |a: f32, b: f32, n: usize| -> Vec<f32> { (0..n).map(|i| (a * i as f32 + b).sin()).collect() };
            let (x, r, dy) = (wave(0.7, 3.0, s.len()), wave(0.3, 1.0, s.len()), wave(1.1, 0.2, s.len()));
            let (gamma, beta) = (wave(0.9, 1.0, c), wave(0.4, 0.0, c));
            let affine = [Some(&gamma[..]), Some(&beta[..])];
            let mut statistics = vec![0.0; 2 * s.samples() * c];
            cpu::statistics(&s, &x, None, 1e-5, &mut statistics);
            for (residual, slope) in [(None, 0.01), (Some(&r), 0.01), (Some(&r), 1.0), (None, 1.0)] {
                let zeros = vec![0.0; s.len()];
                let want = reference::all(&s, &x, &gamma, &beta, residual.unwrap_or(&zeros), &dy, 1e-5, slope as f64);
                let mut y = vec![0.0; s.len()];
                cpu::forward(&s, &x, &statistics, affine, residual.map(|r| &r[..]), slope, &mut y);
                let (mut sums, mut dx) = (vec![0.0; statistics.len()], vec![0.0; s.len()]);
                if residual.is_some() {
                    let mut inner = vec![0.0; s.len()];
                    cpu::grad_inner(&s, [&x, &y, &dy], &statistics, slope, &mut inner, &mut sums);
                    cpu::grad_input(&s, &x, &inner, &statistics, &sums, affine, 1.0, &mut dx);
                } else {
                    cpu::grad_sums(&s, &x, &dy, &statistics, affine, slope, &mut sums);
                    cpu::grad_input(&s, &x, &dy, &statistics, &sums, affine, slope, &mut dx);
                }
                for (got, want) in [(y, want.0), (dx, want.1)] {
                    let scale = want.iter().fold(0f64, |m, v| m.max(v.abs()));
                    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                        assert!((*g as f64 - w).abs() < 1e-5 * scale, "value {i}: {g} against {w}, scale {scale}");
                    }
                }
            }
        }
    }
}
