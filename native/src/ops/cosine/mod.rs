//! Rows of unit length and inner products: what cosine, contrastive and Gram losses are made of.
//!
//! Contract. normalize: y = x / max(|x|, eps) per row of `[rows][c]`; where the norm is below eps it counts as a
//! constant, as in torch.nn.functional.normalize. dot: offset + factor * <a, b>, one value. Sums in f64.

pub mod launch;

use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// Values per stretch of a sum: fixed, so that the bits do not depend on the number of cores.
const STRETCH: usize = 1 << 14;

/// <a, b> in f64 over one stretch.
pub fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum()
}

/// <a, b> in f64: stretches in parallel, their sums in order.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let parts: Vec<f64> = a.par_chunks(STRETCH).zip(b.par_chunks(STRETCH)).map(|(a, b)| inner(a, b)).collect();
    parts.iter().sum()
}

/// sqrt(c) times the mean over the channels of the standard deviation over rows (n - 1) of unit rows: about 1 where
/// directions are spread evenly, 0 where all rows have collapsed to one ("cw_std" of LatentCampus).
fn spread(y: &[f32], rows: usize, c: usize) -> f64 {
    let mut moments = vec![(0f64, 0f64); c];
    for row in y.chunks_exact(c) {
        moments.iter_mut().zip(row).for_each(|(m, &v)| *m = (m.0 + v as f64, m.1 + v as f64 * v as f64));
    }
    let n = rows as f64;
    let deviation = |&(sum, squares): &(f64, f64)| ((squares - sum * sum / n).max(0.0) / (n - 1.0)).sqrt();
    moments.iter().map(deviation).sum::<f64>() / (c as f64).sqrt()
}

exports! {
    /// How evenly unit rows point: 1 in all directions, 0 all in one. One value.
    fn vx_spread(y: u32, rows: u32, c: u32) {
        let (rows, c) = (rows as usize, c as usize);
        if rows < 2 {
            return Err(format!("the spread of {rows} rows: two are needed"));
        }
        let y = tensor::get(y, rows * c, "unit rows")?;
        let (s, handle) = tensor::make(1);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::spread(&y, rows, c, &s);
            }
            s.values_mut()[0] = spread(y.values(), rows, c) as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// Rows divided by their norm, or by eps where that is larger.
    fn vx_normalize(x: u32, rows: u32, c: u32, eps: f32) {
        let (rows, c) = (rows as usize, c as usize);
        let x = tensor::get(x, rows * c, "normalize input")?;
        let (y, handle) = tensor::make(rows * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::normalize(&x, rows, c, eps, &y);
            }
            y.values_mut().par_chunks_mut(c).zip(x.values().par_chunks(c)).for_each(|(y, x)| {
                let factor = 1.0 / inner(x, x).sqrt().max(eps as f64);
                y.iter_mut().zip(x).for_each(|(y, x)| *y = (*x as f64 * factor) as f32);
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the input of `vx_normalize`: (dy - y <y, dy>) / norm.
    fn vx_normalize_grad(dy: u32, x: u32, rows: u32, c: u32, eps: f32) {
        let (rows, c) = (rows as usize, c as usize);
        let dy = tensor::get(dy, rows * c, "normalize output gradient")?;
        let x = tensor::get(x, rows * c, "normalize input")?;
        let (dx, handle) = tensor::make(rows * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::normalize_grad(&dy, &x, rows, c, eps, &dx);
            }
            let rows = dx.values_mut().par_chunks_mut(c).zip(dy.values().par_chunks(c)).zip(x.values().par_chunks(c));
            rows.for_each(|((dx, dy), x)| {
                let norm = inner(x, x).sqrt();
                let factor = 1.0 / norm.max(eps as f64);
                let along = if norm < eps as f64 { 0.0 } else { inner(x, dy) / (norm * norm) };
                for i in 0..c {
                    dx[i] = ((dy[i] as f64 - x[i] as f64 * along) * factor) as f32;
                }
            });
            Ok(())
        });
        Ok(handle)
    }
    /// offset + factor * <a, b> as a tensor of one value.
    fn vx_dot(a: u32, b: u32, len: u32, offset: f64, factor: f64) {
        let a = tensor::get(a, len as usize, "first factor")?;
        let b = tensor::get(b, len as usize, "second factor")?;
        let (y, handle) = tensor::make(1);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::dot(&a, &b, offset, factor, &y);
            }
            y.values_mut()[0] = (offset + factor * dot(a.values(), b.values())) as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// factor * scalar * x, with the scalar in a tensor of one value.
    fn vx_scale_by(scalar: u32, factor: f64, x: u32, len: u32) {
        let scalar = tensor::get(scalar, 1, "scalar")?;
        let x = tensor::get(x, len as usize, "input")?;
        let (y, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::scale_by(&scalar, factor, &x, &y);
            }
            let a = (factor * scalar.values()[0] as f64) as f32;
            let pairs = y.values_mut().par_chunks_mut(STRETCH).zip(x.values().par_chunks(STRETCH));
            pairs.for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, x)| *y = a * x));
            Ok(())
        });
        Ok(handle)
    }
    /// The second half of the values, then the first.
    fn vx_swap_halves(x: u32, len: u32) {
        let len = len as usize;
        if len % 2 == 1 {
            return Err(format!("{len} values have no halves"));
        }
        let x = tensor::get(x, len, "rolled tensor")?;
        let (y, handle) = tensor::make(len);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::swap_halves(&x, &y);
            }
            y.values_mut().copy_from_slice(x.values());
            y.values_mut().rotate_left(len / 2);
            Ok(())
        });
        Ok(handle)
    }
}
