//! The CPU path: one pass for the statistics (none where a convolution left its sums), one for y, one for the sums of the
//! gradient, one for dx. The passes wait for memory (55 GB/s on two cores of a Zen 5), so the backward pass reads x and dy only:
//! the sign of y comes from x.
//!
//! y is written, not made on load by the convolution that reads it. That would pay (numbers in `conv3d/winograd`) for the half of
//! the tensors that nothing else reads; the others are a residual, a skip or the input of a stride of 2.

use super::Shape;
use crate::element::Element;
use crate::ops::rows::{self, Piece};
use crate::wide;
use std::borrow::Cow;

/// The rows of a piece in a tensor.
#[inline(always)]
fn part<'a, E>(values: &'a [E], piece: &Piece, c: usize) -> &'a [E] {
    &values[piece.rows.start * c..piece.rows.end * c]
}

/// Channels `first` to `first + W` of a row.
#[inline(always)]
fn strip<T, const W: usize>(row: &[T], first: usize) -> &[T; W] {
    row[first..first + W].try_into().expect("W channels")
}

/// Adds rows and their squares, from channel `first` on, in strips of `W` channels whose sums stay in registers: whole
/// cache lines where the channels allow. Returns the first channel left.
#[inline(always)]
fn squares<E: Element, const W: usize>(mut first: usize, x: &[E], sum: &mut [f64], square: &mut [f64]) -> usize {
    let c = sum.len();
    while first + W <= c {
        let (mut sums, mut squares) = ([0f64; W], [0f64; W]);
        for row in x.chunks_exact(c) {
            let row: &[E; W] = strip(row, first);
            for i in 0..W {
                let x = row[i].to_f32() as f64;
                sums[i] += x;
                squares[i] += x * x;
            }
        }
        for i in 0..W {
            sum[first + i] += sums[i];
            square[first + i] += squares[i];
        }
        first += W;
    }
    first
}

wide! {
    /// Adds rows and their squares.
    pub fn add_squares<E: Element>(x: &[E], sum: &mut [f64], square: &mut [f64]) {
        let first = squares::<E, 32>(0, x, sum, square);
        let first = squares::<E, 16>(first, x, sum, square);
        let first = squares::<E, 8>(first, x, sum, square);
        squares::<E, 1>(first, x, sum, square);
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

/// g, and x - mean. The sign of y is that of what `affine` applied the activation to: computed again, cheaper than read.
#[inline(always)]
fn gradient<E: Element>(x: E, dy: E, mean: f32, factor: f32, beta: f32, slope: f32) -> (f32, f32) {
    let (dy, centred) = (dy.to_f32(), x.to_f32() - mean);
    (if centred * factor + beta > 0.0 { dy } else { slope * dy }, centred)
}

/// As `squares`, of g and g * (x - mean).
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn gradients<E: Element, const W: usize>(
    mut first: usize,
    x: &[E],
    dy: &[E],
    [mean, factor, beta]: [&[f32]; 3],
    slope: f32,
    sum: &mut [f64],
    product: &mut [f64],
) -> usize {
    let c = mean.len();
    while first + W <= c {
        let (mut sums, mut products) = ([0f64; W], [0f64; W]);
        let [mean, factor, beta] = [mean, factor, beta].map(|v| strip::<f32, W>(v, first));
        for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
            let (x, dy): (&[E; W], &[E; W]) = (strip(x, first), strip(dy, first));
            for i in 0..W {
                let (g, centred) = gradient(x[i], dy[i], mean[i], factor[i], beta[i], slope);
                sums[i] += g as f64;
                products[i] += g as f64 * centred as f64;
            }
        }
        for i in 0..W {
            sum[first + i] += sums[i];
            product[first + i] += products[i];
        }
        first += W;
    }
    first
}

wide! {
    /// Adds g and g * (x - mean), row by row.
    fn add_gradients<E: Element>(
        x: &[E], dy: &[E], of: [&[f32]; 3], slope: f32, sum: &mut [f64], product: &mut [f64],
    ) {
        let first = gradients::<E, 32>(0, x, dy, of, slope, sum, product);
        let first = gradients::<E, 16>(first, x, dy, of, slope, sum, product);
        let first = gradients::<E, 8>(first, x, dy, of, slope, sum, product);
        gradients::<E, 1>(first, x, dy, of, slope, sum, product);
    }
}

wide! {
    /// dx = factor * (g - mean_g - (x - mean) * slant), row by row.
    fn centred<E: Element>(
        x: &[E], dy: &[E], mean: &[f32], factor: &[f32], beta: &[f32], mean_g: &[f32], slant: &[f32], slope: f32, dx: &mut [E],
    ) {
        let c = mean.len();
        let (factor, beta, mean_g, slant) = (&factor[..c], &beta[..c], &mean_g[..c], &slant[..c]);
        let rows = x.chunks_exact(c).zip(dy.chunks_exact(c));
        for (dx, (x, dy)) in dx.chunks_exact_mut(c).zip(rows) {
            for i in 0..c {
                let (g, centred) = gradient(x[i], dy[i], mean[i], factor[i], beta[i], slope);
                dx[i] = E::from_f32(factor[i] * (g - mean_g[i] - centred * slant[i]));
            }
        }
    }
}

/// `[2][samples][c]`: mean, 1 / sqrt(variance + eps). f64 sums of x and x^2 (exact squares) keep the variance of
/// data far from zero. `known`: these sums, where what wrote x left them.
pub fn statistics<E: Element>(s: &Shape, x: &[E], known: Option<&[f64]>, eps: f32, out: &mut [f32]) {
    let c = s.c;
    let sums = |x: &[E]| {
        rows::sums(&rows::pieces(&s.starts, c), s.samples(), 2 * c, |piece, sums| {
            let (sum, square) = sums.split_at_mut(c);
            add_squares(part(x, piece, c), sum, square);
        })
    };
    let sums = known.map_or_else(|| Cow::Owned(sums(x)), Cow::Borrowed);
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

/// gamma and beta; None: 1 and 0.
pub type Affine<'a> = [Option<&'a [f32]>; 2];

/// Per sample gamma * rstd, and beta.
fn terms(s: &Shape, statistics: &[f32], [gamma, beta]: Affine) -> (Vec<Vec<f32>>, Vec<f32>) {
    let factors = (0..s.samples()).map(|n| factor(of_sample(s, statistics, n).1, gamma)).collect();
    (factors, beta.map_or(vec![0f32; s.c], |beta| beta.to_vec()))
}

/// y = act(gamma * xhat + beta + residual).
pub fn forward<E: Element>(
    s: &Shape,
    x: &[E],
    statistics: &[f32],
    of: Affine,
    residual: Option<&[E]>,
    slope: f32,
    y: &mut [E],
) {
    let c = s.c;
    let (factors, beta) = terms(s, statistics, of);
    rows::fill(&rows::pieces(&s.starts, c), c, y, |piece, y| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let residual = residual.map(|r| part(r, piece, c));
        affine(part(x, piece, c), residual, mean, &factors[piece.sample], &beta, slope, y);
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
pub fn grad_sums<E: Element>(
    s: &Shape,
    x: &[E],
    dy: &[E],
    statistics: &[f32],
    of: Affine,
    slope: f32,
    out: &mut [f32],
) {
    let c = s.c;
    let (factors, beta) = terms(s, statistics, of);
    let sums = rows::sums(&rows::pieces(&s.starts, c), s.samples(), 2 * c, |piece, sums| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let (sum, product) = sums.split_at_mut(c);
        let of = [mean, &factors[piece.sample], &beta];
        add_gradients(part(x, piece, c), part(dy, piece, c), of, slope, sum, product);
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
    dy: &[E],
    statistics: &[f32],
    sums: &[f32],
    of: Affine,
    slope: f32,
    dx: &mut [E],
) {
    let c = s.c;
    let (factors, beta) = terms(s, statistics, of);
    // Per sample: the mean of g, and what (x - mean) is weighed with.
    let means: Vec<(Vec<f32>, Vec<f32>)> = (0..s.samples())
        .map(|n| {
            let count = (s.starts[n + 1] - s.starts[n]) as f32;
            let (_, rstd) = of_sample(s, statistics, n);
            let (sum, product) = of_sample(s, sums, n);
            let mean = sum.iter().map(|v| v / count).collect();
            (mean, product.iter().zip(rstd).map(|(v, r)| v * r / count).collect())
        })
        .collect();
    rows::fill(&rows::pieces(&s.starts, c), c, dx, |piece, dx| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let (factor, (mean_g, slant)) = (&factors[piece.sample], &means[piece.sample]);
        centred(part(x, piece, c), part(dy, piece, c), mean, factor, &beta, mean_g, slant, slope, dx);
    });
}
