//! The CPU path: one pass for the statistics, one for y, one for the sums of the gradient, one for dx.

use super::Shape;
use crate::element::Element;
use crate::ops::rows::{self, Piece};
use crate::wide;

/// The rows of a piece in a tensor.
#[inline(always)]
fn part<'a, E>(values: &'a [E], piece: &Piece, c: usize) -> &'a [E] {
    &values[piece.rows.start * c..piece.rows.end * c]
}

/// Channels whose sums stay in registers over all rows of a piece.
const STRIP: usize = 16;

/// Channels `first` to `first + STRIP` of a row.
#[inline(always)]
fn strip<T>(row: &[T], first: usize) -> &[T; STRIP] {
    row[first..first + STRIP].try_into().expect("STRIP channels")
}

wide! {
    /// Adds rows and their squares.
    fn add_squares<E: Element>(x: &[E], sum: &mut [f64], square: &mut [f64]) {
        let c = sum.len();
        let whole = c / STRIP * STRIP;
        for first in (0..whole).step_by(STRIP) {
            let (mut sums, mut squares) = ([0f64; STRIP], [0f64; STRIP]);
            for row in x.chunks_exact(c) {
                let row = strip(row, first);
                for i in 0..STRIP {
                    let x = row[i].to_f32() as f64;
                    sums[i] += x;
                    squares[i] += x * x;
                }
            }
            for i in 0..STRIP {
                sum[first + i] += sums[i];
                square[first + i] += squares[i];
            }
        }
        for row in x.chunks_exact(c) {
            for i in whole..c {
                let x = row[i].to_f32() as f64;
                sum[i] += x;
                square[i] += x * x;
            }
        }
    }
}

wide! {
    /// y = act((x - mean) * factor + beta + residual), row by row.
    fn affine<E: Element>(
        x: &[E], residual: Option<&[E]>, mean: &[f32], factor: &[f32], beta: &[f32], slope: f32, y: &mut [E],
    ) {
        let c = mean.len();
        let (factor, beta) = (&factor[..c], &beta[..c]);
        if let Some(residual) = residual {
            let rows = x.chunks_exact(c).zip(residual.chunks_exact(c));
            for (y, (x, r)) in y.chunks_exact_mut(c).zip(rows) {
                for i in 0..c {
                    let v = (x[i].to_f32() - mean[i]) * factor[i] + beta[i] + r[i].to_f32();
                    y[i] = E::from_f32(if v > 0.0 { v } else { slope * v });
                }
            }
        } else {
            for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                for i in 0..c {
                    let v = (x[i].to_f32() - mean[i]) * factor[i] + beta[i];
                    y[i] = E::from_f32(if v > 0.0 { v } else { slope * v });
                }
            }
        }
    }
}

/// (g, g * (x - mean)); y is read only where slope is not 1.
#[inline(always)]
fn gradient<E: Element>(x: E, y: E, dy: E, mean: f32, slope: f32) -> (f64, f64) {
    let dy = dy.to_f32();
    let g = (if slope == 1.0 || y.to_f32() > 0.0 { dy } else { slope * dy }) as f64;
    (g, g * (x.to_f32() - mean) as f64)
}

wide! {
    /// Adds g and g * (x - mean), row by row.
    fn add_gradients<E: Element>(
        x: &[E], y: &[E], dy: &[E], mean: &[f32], slope: f32, sum: &mut [f64], product: &mut [f64],
    ) {
        let c = mean.len();
        let whole = c / STRIP * STRIP;
        for first in (0..whole).step_by(STRIP) {
            let (mut sums, mut products, mean) = ([0f64; STRIP], [0f64; STRIP], strip(mean, first));
            for ((x, dy), y) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(y.chunks_exact(c)) {
                let (x, dy, y) = (strip(x, first), strip(dy, first), strip(y, first));
                for i in 0..STRIP {
                    let (g, p) = gradient(x[i], y[i], dy[i], mean[i], slope);
                    sums[i] += g;
                    products[i] += p;
                }
            }
            for i in 0..STRIP {
                sum[first + i] += sums[i];
                product[first + i] += products[i];
            }
        }
        for ((x, dy), y) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(y.chunks_exact(c)) {
            for i in whole..c {
                let (g, p) = gradient(x[i], y[i], dy[i], mean[i], slope);
                sum[i] += g;
                product[i] += p;
            }
        }
    }
}

wide! {
    /// dx = factor * (g - mean_g - (x - mean) * slant), row by row; y is read only where slope is not 1.
    fn centred<E: Element>(
        x: &[E], y: &[E], dy: &[E], mean: &[f32], factor: &[f32], mean_g: &[f32], slant: &[f32], slope: f32, dx: &mut [E],
    ) {
        let c = mean.len();
        let (factor, mean_g, slant) = (&factor[..c], &mean_g[..c], &slant[..c]);
        let rows = x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(y.chunks_exact(c));
        for (dx, ((x, dy), y)) in dx.chunks_exact_mut(c).zip(rows) {
            for i in 0..c {
                let dy = dy[i].to_f32();
                let g = if slope == 1.0 || y[i].to_f32() > 0.0 { dy } else { slope * dy };
                let centred = x[i].to_f32() - mean[i];
                dx[i] = E::from_f32(factor[i] * (g - mean_g[i] - centred * slant[i]));
            }
        }
    }
}

/// `[2][samples][c]`: mean, 1 / sqrt(variance + eps). f64 sums of x and x^2 (exact squares) keep the variance of
/// data far from zero.
pub fn statistics<E: Element>(s: &Shape, x: &[E], eps: f32, out: &mut [f32]) {
    let c = s.c;
    let sums = rows::sums(&rows::pieces(&s.starts, c), s.samples(), 2 * c, |piece, sums| {
        let (sum, square) = sums.split_at_mut(c);
        add_squares(part(x, piece, c), sum, square);
    });
    let (means, rstds) = out.split_at_mut(s.samples() * c);
    for n in 0..s.samples() {
        let count = (s.starts[n + 1] - s.starts[n]) as f64;
        for i in 0..c {
            let mean = sums[2 * n * c + i] / count;
            let variance = (sums[(2 * n + 1) * c + i] / count - mean * mean).max(0.0);
            means[n * c + i] = mean as f32;
            rstds[n * c + i] = (1.0 / (variance + eps as f64).sqrt()) as f32;
        }
    }
}

/// Mean and rstd of one sample.
#[inline(always)]
fn of_sample<'a>(s: &Shape, statistics: &'a [f32], sample: usize) -> (&'a [f32], &'a [f32]) {
    let (means, rstds) = statistics.split_at(s.samples() * s.c);
    (&means[sample * s.c..][..s.c], &rstds[sample * s.c..][..s.c])
}

/// y = act(gamma * xhat + beta + residual).
#[allow(clippy::too_many_arguments)]
pub fn forward<E: Element>(
    s: &Shape,
    x: &[E],
    statistics: &[f32],
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    residual: Option<&[E]>,
    slope: f32,
    y: &mut [E],
) {
    let c = s.c;
    let zeros = vec![0f32; c];
    let beta = beta.unwrap_or(&zeros);
    let factors: Vec<Vec<f32>> = (0..s.samples()).map(|n| factor(of_sample(s, statistics, n).1, gamma)).collect();
    rows::fill(&rows::pieces(&s.starts, c), c, y, |piece, y| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let residual = residual.map(|r| part(r, piece, c));
        affine(part(x, piece, c), residual, mean, &factors[piece.sample], beta, slope, y);
    });
}

/// gamma * rstd.
fn factor(rstd: &[f32], gamma: Option<&[f32]>) -> Vec<f32> {
    match gamma {
        Some(gamma) => rstd.iter().zip(gamma).map(|(r, g)| r * g).collect(),
        None => rstd.to_vec(),
    }
}

/// `[2][samples][c]`: sums of g and of g * xhat.
pub fn grad_sums<E: Element>(s: &Shape, x: &[E], y: &[E], dy: &[E], statistics: &[f32], slope: f32, out: &mut [f32]) {
    let c = s.c;
    let sums = rows::sums(&rows::pieces(&s.starts, c), s.samples(), 2 * c, |piece, sums| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let (sum, product) = sums.split_at_mut(c);
        add_gradients(part(x, piece, c), part(y, piece, c), part(dy, piece, c), mean, slope, sum, product);
    });
    let (sum, product) = out.split_at_mut(s.samples() * c);
    for n in 0..s.samples() {
        let (_, rstd) = of_sample(s, statistics, n);
        for i in 0..c {
            sum[n * c + i] = sums[2 * n * c + i] as f32;
            product[n * c + i] = (sums[(2 * n + 1) * c + i] * rstd[i] as f64) as f32;
        }
    }
}

/// dx = gamma * rstd * (g - mean(g) - xhat * mean(g * xhat)).
#[allow(clippy::too_many_arguments)]
pub fn grad_input<E: Element>(
    s: &Shape,
    x: &[E],
    y: &[E],
    dy: &[E],
    statistics: &[f32],
    sums: &[f32],
    gamma: Option<&[f32]>,
    slope: f32,
    dx: &mut [E],
) {
    let c = s.c;
    // Per sample: the factor of g, the mean of g, and what (x - mean) is weighed with.
    let terms: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)> = (0..s.samples())
        .map(|n| {
            let count = (s.starts[n + 1] - s.starts[n]) as f32;
            let (_, rstd) = of_sample(s, statistics, n);
            let (sum, product) = of_sample(s, sums, n);
            let mean = sum.iter().map(|v| v / count).collect();
            let slant = product.iter().zip(rstd).map(|(v, r)| v * r / count).collect();
            (factor(rstd, gamma), mean, slant)
        })
        .collect();
    rows::fill(&rows::pieces(&s.starts, c), c, dx, |piece, dx| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let (factor, mean_g, slant) = &terms[piece.sample];
        let (x, y, dy) = (part(x, piece, c), part(y, piece, c), part(dy, piece, c));
        centred(x, y, dy, mean, factor, mean_g, slant, slope, dx);
    });
}
