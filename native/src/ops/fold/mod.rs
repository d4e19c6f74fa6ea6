//! Batch norm (no affine) folded into the weight of the linear layer before it, from the covariance of that layer's input:
//! the layer's own output is never made, and what follows sees one linear layer on fewer rows or of fewer columns.
//!
//! Contract. x `[rows][c]`, mean `[c]` of its rows, weight `[o][c]`, f32 but for x. covariance C = (x - mean)^T (x - mean) /
//! rows; along = weight C; folded row j = r_j w_j with r_j = 1 / sqrt(along_j . w_j + eps), so that the norm of
//! x weight^T is (x - mean) folded^T. With g the gradient of folded and s_j = -r_j^3 (g_j . w_j):
//! dweight_j = r_j g_j + s_j along_j, dx = (x - mean) spread, spread = sum over j of s_j w_j w_j^T / rows.
//! C and spread are symmetric: half of each is computed. `paired`: products multiply bf16 where the processor can.

use crate::abi::Result;
use crate::element::{Dtype, Element};
use crate::ops::conv3d::direct::Shared;
use crate::ops::linear::pack::Factor;
use crate::ops::linear::product::{With, product};
use crate::ops::linear::{by_group, by_tile};
use crate::tensor::{self, Tensor};
use crate::{queue, wide};
use rayon::prelude::*;

/// Edge of the squares in which a matrix is mirrored.
const EDGE: usize = 16;
/// Values that are summed beside each other.
const LANES: usize = 16;

wide! {
    /// <a, b>
    fn dot(a: &[f32], b: &[f32], sum: &mut f64) {
        let mut sums = [0f64; LANES];
        let (whole, rest) = (a.len() / LANES * LANES, a.len() % LANES);
        for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
            for i in 0..LANES {
                sums[i] += a[i] as f64 * b[i] as f64;
            }
        }
        for i in 0..rest {
            sums[i] += a[whole + i] as f64 * b[whole + i] as f64;
        }
        *sum = sums.iter().sum();
    }
}

wide! {
    /// y = a u + b v
    fn combine(a: f32, u: &[f32], b: f32, v: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(u.iter().zip(v)).for_each(|(y, (u, v))| *y = a * u + b * v);
    }
}

wide! {
    /// y = a u + b y
    fn add(a: f32, u: &[f32], b: f32, y: &mut [f32]) {
        y.iter_mut().zip(u).for_each(|(y, u)| *y = a * u + b * *y);
    }
}

fn inner(a: &[f32], b: &[f32]) -> f64 {
    let mut sum = 0.0;
    dot(a, b, &mut sum);
    sum
}

/// 1 / sqrt(along . w + eps)
fn rate(along: &[f32], w: &[f32], eps: f32) -> f64 {
    1.0 / (inner(along, w).max(0.0) + eps as f64).sqrt()
}

/// Copies what lies above the diagonal of `[c][c]` below it.
fn mirror(m: &mut [f32], c: usize) {
    let m = Shared(m.as_mut_ptr());
    (0..c.div_ceil(EDGE)).into_par_iter().for_each(|band| {
        for first in (0..=band * EDGE).step_by(EDGE) {
            for i in band * EDGE..c.min((band + 1) * EDGE) {
                // Below the diagonal, which this band alone writes; above it nobody does.
                (first..i.min(first + EDGE)).for_each(|j| unsafe { *m.at(i * c + j) = *m.at(j * c + i) });
            }
        }
    });
}

/// C from x and its mean.
pub fn covariance<E: Element>(x: &[E], mean: &[f32], out: &mut [f32]) {
    let c = mean.len();
    let rows = x.len() / c;
    let (a, with) = (Factor::columns(x, c), With { upper: true, ..With::NONE });
    by_tile!(E, G, R, tile => product::<G, R, E, E, f32>([c, c, rows], a, a, with, out, tile));
    out.par_chunks_mut(c).enumerate().for_each(|(i, out)| {
        add(-mean[i], &mean[i..], 1.0 / rows as f32, &mut out[i..]);
    });
    mirror(out, c);
}

/// weight C.
pub fn along<E: Element>(weight: &[f32], covariance: &[f32], c: usize, out: &mut [f32]) {
    let (a, b) = (Factor::rows(weight, c), Factor::rows(covariance, c));
    by_tile!(E, G, R, tile => product::<G, R, f32, f32, f32>([weight.len() / c, c, c], a, b, With::NONE, out, tile))
}

pub fn fold(weight: &[f32], along: &[f32], c: usize, eps: f32, out: &mut [f32]) {
    let rows = weight.par_chunks(c).zip(along.par_chunks(c));
    out.par_chunks_mut(c).zip(rows).for_each(|(out, (w, along))| {
        combine(rate(along, w, eps) as f32, w, 0.0, w, out);
    });
}

/// r and s of a row.
fn slopes(w: &[f32], along: &[f32], g: &[f32], eps: f32) -> (f64, f64) {
    let r = rate(along, w, eps);
    (r, -r * r * r * inner(g, w))
}

pub fn grad_weight(weight: &[f32], along: &[f32], g: &[f32], c: usize, eps: f32, out: &mut [f32]) {
    let rows = weight.par_chunks(c).zip(along.par_chunks(c)).zip(g.par_chunks(c));
    out.par_chunks_mut(c).zip(rows).for_each(|(out, ((w, along), g))| {
        let (r, s) = slopes(w, along, g, eps);
        combine(r as f32, g, s as f32, along, out);
    });
}

pub fn spread<E: Element>(weight: &[f32], along: &[f32], g: &[f32], [rows, c]: [usize; 2], eps: f32, out: &mut [f32]) {
    let mut scaled = crate::memory::Scratch::<f32>::new(weight.len());
    let all = weight.par_chunks(c).zip(along.par_chunks(c)).zip(g.par_chunks(c));
    scaled.par_chunks_mut(c).zip(all).for_each(|(scaled, ((w, along), g))| {
        let (_, s) = slopes(w, along, g, eps);
        combine((s / rows as f64) as f32, w, 0.0, w, scaled);
    });
    let (a, b, with) =
        (Factor::columns(&scaled[..], c), Factor::columns(weight, c), With { upper: true, ..With::NONE });
    by_tile!(E, G, R, tile => product::<G, R, f32, f32, f32>([c, c, weight.len() / c], a, b, with, out, tile));
    mirror(out, c);
}

/// Weight, along and gradient of folded, checked.
fn three(weight: u32, along: u32, g: u32, c: u32, o: u32) -> Result<[Tensor; 3]> {
    let len = c as usize * o as usize;
    let all = [(weight, "fold weight"), (along, "fold along"), (g, "fold gradient")];
    let [weight, along, g] = all.map(|(handle, what)| tensor::get(handle, len, what));
    Ok([weight?, along?, g?])
}

exports! {
    /// Covariance `[c][c]` of the rows of x, whose mean is given.
    fn vx_covariance(x: u32, mean: u32, rows: u32, c: u32) {
        let (rows, c) = (rows as usize, c as usize);
        let x = tensor::either(x, rows * c, "covariance input")?;
        let mean = tensor::get(mean, c, "covariance mean")?;
        let (out, handle) = tensor::make(c * c);
        queue::enqueue(move || {
            by_dtype!(x.dtype, E => covariance(x.of::<E>(), mean.values(), out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// weight covariance, `[o][c]`.
    fn vx_fold_along(weight: u32, covariance: u32, c: u32, o: u32, paired: bool) {
        let (c, o) = (c as usize, o as usize);
        let weight = tensor::get(weight, o * c, "fold weight")?;
        let covariance = tensor::get(covariance, c * c, "fold covariance")?;
        let (out, handle) = tensor::make(o * c);
        queue::enqueue(move || {
            by_dtype!(kind(paired), E => along::<E>(weight.values(), covariance.values(), c, out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// The folded weight.
    fn vx_fold(weight: u32, along: u32, c: u32, o: u32, eps: f32) {
        let (c, o) = (c as usize, o as usize);
        let weight = tensor::get(weight, o * c, "fold weight")?;
        let along = tensor::get(along, o * c, "fold along")?;
        let (out, handle) = tensor::make(o * c);
        queue::enqueue(move || {
            fold(weight.values(), along.values(), c, eps, out.values_mut());
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the weight from that of the folded weight.
    fn vx_fold_grad_weight(weight: u32, along: u32, g: u32, c: u32, o: u32, eps: f32) {
        let [weight, along, g] = three(weight, along, g, c, o)?;
        let (out, handle) = tensor::make(weight.len);
        queue::enqueue(move || {
            grad_weight(weight.values(), along.values(), g.values(), c as usize, eps, out.values_mut());
            Ok(())
        });
        Ok(handle)
    }
    /// What centred rows are multiplied with for the gradient of x, `[c][c]`, symmetric.
    fn vx_fold_spread(weight: u32, along: u32, g: u32, rows: u32, c: u32, o: u32, eps: f32, paired: bool) {
        let [weight, along, g] = three(weight, along, g, c, o)?;
        let shape = [rows as usize, c as usize];
        let (out, handle) = tensor::make(shape[1] * shape[1]);
        queue::enqueue(move || {
            let (w, along, g) = (weight.values(), along.values(), g.values());
            by_dtype!(kind(paired), E => spread::<E>(w, along, g, shape, eps, out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
}

fn kind(paired: bool) -> Dtype {
    if paired { Dtype::Bf16 } else { Dtype::F32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covariance_equals_sums_in_f64_on_any_number_of_cores() {
        let _forcing = crate::ops::conv3d::isa::FORCING.lock();
        let (rows, c) = (300, 45);
        let x: Vec<f32> = (0..rows * c).map(|i| (0.37 * i as f32).sin() + 0.5 * (1.1 * (i % c) as f32).cos()).collect();
        let column = |j: usize| (0..rows).map(move |n| n * c + j);
        let mean: Vec<f64> = (0..c).map(|j| column(j).map(|i| x[i] as f64).sum::<f64>() / rows as f64).collect();
        let single: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
        let run = |cores| {
            let mut out = vec![9.0; c * c];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(cores).build().unwrap();
            pool.install(|| covariance(&x, &single, &mut out));
            out
        };
        let out = run(1);
        assert_eq!(out, run(3));
        for (i, j) in (0..c).flat_map(|i| (0..c).map(move |j| (i, j))) {
            let want =
                column(i).zip(column(j)).map(|(a, b)| (x[a] as f64 - mean[i]) * (x[b] as f64 - mean[j])).sum::<f64>();
            assert!((out[i * c + j] as f64 - want / rows as f64).abs() < 1e-5, "{i} {j}");
        }
    }
}
