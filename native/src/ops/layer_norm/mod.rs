//! Layer normalisation: over the channels of each row.
//!
//! Contract. x, y `[rows][c]`, f32 or bf16; gamma, beta `[c]`. mean, variance (biased): per row over its channels.
//! xhat = (x - mean) / sqrt(variance + eps); y = gamma * xhat + beta. Backward, with g = dy * gamma and means over the
//! channels of a row: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)); dgamma = sum dy * xhat, dbeta = sum dy over rows.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::{gpu, queue, tensor};

exports! {
    /// Mean and 1 / sqrt(variance + eps) of each row: `[rows][2]`.
    fn vx_layer_norm_statistics(x: u32, rows: u32, c: u32, eps: f32) {
        let (rows, c) = (rows as usize, c as usize);
        let x = tensor::either(x, rows * c, "layer norm input")?;
        let (out, handle) = tensor::make(2 * rows);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::statistics(c, &x, eps, &out);
            }
            by_dtype!(x.dtype, E => cpu::statistics(c, x.of::<E>(), eps, out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// y from x and its statistics.
    fn vx_layer_norm(x: u32, statistics: u32, gamma: u32, beta: u32, rows: u32, c: u32) {
        let (rows, c) = (rows as usize, c as usize);
        let x = tensor::either(x, rows * c, "layer norm input")?;
        let statistics = tensor::get(statistics, 2 * rows, "layer norm statistics")?;
        let gamma = tensor::get(gamma, c, "layer norm weight")?;
        let beta = tensor::get(beta, c, "layer norm bias")?;
        let (y, handle) = tensor::make_as(rows * c, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(c, &x, &statistics, &gamma, &beta, &y);
            }
            let (statistics, gamma, beta) = (statistics.values(), gamma.values(), beta.values());
            by_dtype!(x.dtype, E => cpu::forward(c, x.of::<E>(), statistics, gamma, beta, y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradients of beta and gamma: `[2][c]`.
    fn vx_layer_norm_grad_affine(x: u32, statistics: u32, dy: u32, rows: u32, c: u32) {
        let (rows, c) = (rows as usize, c as usize);
        let x = tensor::either(x, rows * c, "layer norm input")?;
        let statistics = tensor::get(statistics, 2 * rows, "layer norm statistics")?;
        let dy = tensor::get_as(dy, rows * c, "layer norm gradient", x.dtype)?;
        let (out, handle) = tensor::make(2 * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_affine(c, &x, &statistics, &dy, &out);
            }
            by_dtype!(x.dtype, E => cpu::grad_affine(c, x.of::<E>(), statistics.values(), dy.of(), out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of x.
    fn vx_layer_norm_grad_input(x: u32, statistics: u32, gamma: u32, dy: u32, rows: u32, c: u32) {
        let (rows, c) = (rows as usize, c as usize);
        let x = tensor::either(x, rows * c, "layer norm input")?;
        let statistics = tensor::get(statistics, 2 * rows, "layer norm statistics")?;
        let gamma = tensor::get(gamma, c, "layer norm weight")?;
        let dy = tensor::get_as(dy, rows * c, "layer norm gradient", x.dtype)?;
        let (dx, handle) = tensor::make_as(rows * c, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_input(c, &x, &statistics, &gamma, &dy, &dx);
            }
            let (statistics, gamma) = (statistics.values(), gamma.values());
            by_dtype!(x.dtype, E => cpu::grad_input(c, x.of::<E>(), statistics, gamma, dy.of(), dx.of_mut()));
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
        for (rows, c) in [(3, 5), (700, 40), (2, 1)] {
            let wave = |a: f32, b: f32, n: usize| -> Vec<f32> { (0..n).map(|i| (a * i as f32 + b).sin()).collect() };
            let (x, dy) = (wave(0.7, 3.0, rows * c), wave(1.1, 0.2, rows * c));
            let (gamma, beta) = (wave(0.9, 1.0, c), wave(0.4, 0.0, c));
            let want = reference::all(c, &x, &gamma, &beta, &dy, 1e-5);
            let mut statistics = vec![0.0; 2 * rows];
            cpu::statistics(c, &x, 1e-5, &mut statistics);
            let (mut y, mut dx, mut affine) = (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; 2 * c]);
            cpu::forward(c, &x, &statistics, &gamma, &beta, &mut y);
            cpu::grad_input(c, &x, &statistics, &gamma, &dy, &mut dx);
            cpu::grad_affine(c, &x, &statistics, &dy, &mut affine);
            for (got, want) in [(y, want.0), (dx, want.1), (affine, want.2)] {
                let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
                for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                    assert!((*g as f64 - w).abs() < 1e-5 * scale, "value {i}: {g} against {w}, scale {scale}");
                }
            }
        }
    }
}
