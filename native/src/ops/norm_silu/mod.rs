//! Batch norm (no affine) and SiLU of a matrix in one pass, and in two back: the normalised values are never kept.
//!
//! Contract. x, y `[rows][c]`, statistics `[2][c]` of `vx_norm_statistics`: mean and rate. v = (x - mean) * rate,
//! y = v * s(v), s(v) = 1 / (1 + exp(-v)). Backward, with g = dy * s * (1 + v * (1 - s)), rounded to the type of x:
//! dx = rate * (g - mean(g) - v * mean(g * v)), means over the rows.

use crate::element::Element;
use crate::ops::activation::sigmoid;
use crate::ops::conv3d::direct::Shared;
use crate::ops::rows;
use crate::{queue, tensor, wide};

/// Channels whose sums stay in registers over the rows of a stretch.
const STRIP: usize = 32;

wide! {
    fn values<E: Element>(x: &[E], mean: &[f32], rate: &[f32], y: &mut [E]) {
        let c = mean.len();
        let rate = &rate[..c];
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for i in 0..c {
                let v = (x[i].to_f32() - mean[i]) * rate[i];
                y[i] = E::from_f32(v * sigmoid(v));
            }
        }
    }
}

wide! {
    /// g of rows.
    fn slopes<E: Element>(x: &[E], dy: &[E], mean: &[f32], rate: &[f32], g: &mut [E]) {
        let c = mean.len();
        let rate = &rate[..c];
        for (g, (x, dy)) in g.chunks_exact_mut(c).zip(x.chunks_exact(c).zip(dy.chunks_exact(c))) {
            for i in 0..c {
                let v = (x[i].to_f32() - mean[i]) * rate[i];
                let s = sigmoid(v);
                g[i] = E::from_f32(dy[i].to_f32() * s * (1.0 + v * (1.0 - s)));
            }
        }
    }
}

wide! {
    /// Adds g and g * (x - mean), row by row.
    fn add<E: Element>(x: &[E], g: &[E], mean: &[f32], sum: &mut [f64], product: &mut [f64]) {
        let c = mean.len();
        let near = rows::near::<E>(c) * c;
        for (x, g) in x.chunks(near).zip(g.chunks(near)) {
            for first in (0..c).step_by(STRIP) {
                let at = first..c.min(first + STRIP);
                let (mean, sum, product) = (&mean[at.clone()], &mut sum[at.clone()], &mut product[at.clone()]);
                let rows = x.chunks_exact(c).zip(g.chunks_exact(c)).map(|(x, g)| (&x[at.clone()], &g[at.clone()]));
                let Ok(centre) = <&[f32; STRIP]>::try_from(mean) else {
                    for (x, g) in rows {
                        for i in 0..mean.len() {
                            let value = g[i].to_f32() as f64;
                            sum[i] += value;
                            product[i] += value * (x[i].to_f32() - mean[i]) as f64;
                        }
                    }
                    continue;
                };
                let whole = |v: &[f64]| <[f64; STRIP]>::try_from(v).expect("STRIP channels");
                let (mut sums, mut products) = (whole(sum), whole(product));
                for (x, g) in rows {
                    let whole = |v| <&[E; STRIP]>::try_from(v).expect("STRIP channels");
                    let (x, g): (&[E; STRIP], &[E; STRIP]) = (whole(x), whole(g));
                    for i in 0..STRIP {
                        let value = g[i].to_f32() as f64;
                        sums[i] += value;
                        products[i] += value * (x[i].to_f32() - centre[i]) as f64;
                    }
                }
                sum.copy_from_slice(&sums);
                product.copy_from_slice(&products);
            }
        }
    }
}

wide! {
    /// dx = rate * (g - mean_g - (x - mean) * slant) in place of g.
    fn centred<E: Element>(x: &[E], mean: &[f32], rate: &[f32], mean_g: &[f32], slant: &[f32], g: &mut [E]) {
        let c = mean.len();
        let (rate, mean_g, slant) = (&rate[..c], &mean_g[..c], &slant[..c]);
        for (g, x) in g.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for i in 0..c {
                g[i] = E::from_f32(rate[i] * (g[i].to_f32() - mean_g[i] - (x[i].to_f32() - mean[i]) * slant[i]));
            }
        }
    }
}

pub fn forward<E: Element>(x: &[E], statistics: &[f32], y: &mut [E]) {
    let c = statistics.len() / 2;
    let (mean, rate) = statistics.split_at(c);
    rows::fill(&rows::pieces(&[0, x.len() / c], c), c, y, |piece, y| {
        values(&x[piece.rows.start * c..piece.rows.end * c], mean, rate, y);
    });
}

pub fn backward<E: Element>(x: &[E], dy: &[E], statistics: &[f32], dx: &mut [E]) {
    let c = statistics.len() / 2;
    let (mean, rate) = statistics.split_at(c);
    let pieces = rows::pieces(&[0, x.len() / c], c);
    let shared = Shared(dx.as_mut_ptr());
    let sums = rows::sums(&pieces, 1, 2 * c, |piece, sums| {
        let at = piece.rows.start * c..piece.rows.end * c;
        // Pieces do not overlap.
        let g = unsafe { std::slice::from_raw_parts_mut(shared.at(at.start), at.len()) };
        slopes(&x[at.clone()], &dy[at.clone()], mean, rate, g);
        let (sum, product) = sums.split_at_mut(c);
        add(&x[at], g, mean, sum, product);
    });
    let count = (x.len() / c) as f64;
    let mean_g: Vec<f32> = sums[..c].iter().map(|s| (s / count) as f32).collect();
    let square = |r: f32| r as f64 * r as f64;
    let slant: Vec<f32> = sums[c..].iter().zip(rate).map(|(p, r)| (p * square(*r) / count) as f32).collect();
    rows::fill(&pieces, c, dx, |piece, g| {
        centred(&x[piece.rows.start * c..piece.rows.end * c], mean, rate, &mean_g, &slant, g);
    });
}

exports! {
    /// SiLU of the normalised columns of x.
    fn vx_norm_silu(x: u32, statistics: u32, rows: u32, c: u32) {
        let (len, c) = (rows as usize * c as usize, c as usize);
        let x = tensor::either(x, len, "norm input")?;
        let statistics = tensor::get(statistics, 2 * c, "norm statistics")?;
        let (y, handle) = tensor::make_as(len, x.dtype);
        queue::enqueue(move || {
            by_dtype!(x.dtype, E => forward(x.of::<E>(), statistics.values(), y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of x.
    fn vx_norm_silu_grad(x: u32, dy: u32, statistics: u32, rows: u32, c: u32) {
        let (len, c) = (rows as usize * c as usize, c as usize);
        let x = tensor::either(x, len, "norm input")?;
        let dy = tensor::get_as(dy, len, "norm output gradient", x.dtype)?;
        let statistics = tensor::get(statistics, 2 * c, "norm statistics")?;
        let (dx, handle) = tensor::make_as(len, x.dtype);
        queue::enqueue(move || {
            by_dtype!(x.dtype, E => backward(x.of::<E>(), dy.of(), statistics.values(), dx.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
}
