//! Differences of Gram matrices: which channels are active together, over the positions of one view.
//!
//! Contract. p, z `[n * positions][c]`; D `[n][c][c]`, D_k = P_k^T P_k - Z_k^T Z_k, symmetric. The gradient of P_k
//! from a symmetric dD is 2 P_k dD. Sums run over positions in order.

pub mod launch;
pub mod reference;

use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// D of one sample, row by row of the matrix: row i needs column i and all rows of p and z.
pub fn difference(p: &[f32], z: &[f32], c: usize, d: &mut [f32]) {
    d.par_chunks_mut(c).enumerate().for_each(|(i, d)| {
        d.fill(0.0);
        for (p, z) in p.chunks_exact(c).zip(z.chunks_exact(c)) {
            let (a, b) = (p[i], z[i]);
            d.iter_mut().zip(p.iter().zip(z)).for_each(|(d, (p, z))| *d += a * p - b * z);
        }
    });
}

/// dp = 2 p dD of one sample.
pub fn gradient(p: &[f32], dd: &[f32], c: usize, dp: &mut [f32]) {
    dp.par_chunks_mut(c).zip(p.par_chunks(c)).for_each(|(dp, p)| {
        dp.fill(0.0);
        for (a, row) in p.iter().zip(dd.chunks_exact(c)) {
            dp.iter_mut().zip(row).for_each(|(d, r)| *d += 2.0 * a * r);
        }
    });
}

exports! {
    /// D = P^T P - Z^T Z per sample, `[n * c][c]`.
    fn vx_gram_difference(p: u32, z: u32, n: u32, positions: u32, c: u32) {
        let [n, positions, c] = [n, positions, c].map(|v| v as usize);
        let p = tensor::get(p, n * positions * c, "Gram student")?;
        let z = tensor::get(z, n * positions * c, "Gram teacher")?;
        let (d, handle) = tensor::make(n * c * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::difference(&p, &z, [n, positions, c], &d);
            }
            let one = positions * c;
            for k in 0..n {
                let (p, z) = (&p.values()[k * one..][..one], &z.values()[k * one..][..one]);
                difference(p, z, c, &mut d.values_mut()[k * c * c..][..c * c]);
            }
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of p from a symmetric gradient of D.
    fn vx_gram_grad(p: u32, dd: u32, n: u32, positions: u32, c: u32) {
        let [n, positions, c] = [n, positions, c].map(|v| v as usize);
        let p = tensor::get(p, n * positions * c, "Gram student")?;
        let dd = tensor::get(dd, n * c * c, "Gram gradient")?;
        let (dp, handle) = tensor::make(n * positions * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::gradient(&p, &dd, [n, positions, c], &dp);
            }
            let one = positions * c;
            for k in 0..n {
                let dd = &dd.values()[k * c * c..][..c * c];
                gradient(&p.values()[k * one..][..one], dd, c, &mut dp.values_mut()[k * one..][..one]);
            }
            Ok(())
        });
        Ok(handle)
    }
}
