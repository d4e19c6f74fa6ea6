//! The CPU path: one pass for the statistics (none where a convolution left its sums), one for y, one for the sums of the
//! gradient, one for dx. The passes wait for memory (55 GB/s on two cores of a Zen 5), so the backward pass reads x and dy only:
//! the sign of y comes from x. With a residual it reads y too and writes g, which is the gradient of the residual, with the sums.
//!
//! y is written, not made on load by the convolution that reads it. That would pay (numbers in `conv3d/winograd`) for the half of
//! the tensors that nothing else reads; the others are a residual, a skip or the input of a stride of 2.

use super::Shape;
use super::passes::{add_gradients, add_squares, affine, centred, gate};
use crate::element::Element;
use crate::ops::rows::{self, Piece};
use std::borrow::Cow;

/// The rows of a piece in a tensor.
#[inline(always)]
fn part<'a, E>(values: &'a [E], piece: &Piece, c: usize) -> &'a [E] {
    &values[piece.rows.start * c..piece.rows.end * c]
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
    let past = rows::past(y);
    rows::fill(&rows::pieces(&s.starts, c), c, y, |piece, y| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let residual = residual.map(|r| part(r, piece, c));
        affine(part(x, piece, c), residual, [mean, &factors[piece.sample], &beta], slope, y, past);
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
    normed(s, statistics, &sums, out);
}

/// As `grad_sums` of a norm with residual, from y; writes `g` on the way.
pub fn grad_inner<E: Element>(
    s: &Shape,
    [x, y, dy]: [&[E]; 3],
    statistics: &[f32],
    slope: f32,
    g: &mut [E],
    out: &mut [f32],
) {
    let (c, past) = (s.c, rows::past(g));
    let pieces = rows::pieces(&s.starts, c);
    let sums = rows::fill_and_sum(&pieces, c, g, s.samples(), 2 * c, |piece, g, sums| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let (sum, product) = sums.split_at_mut(c);
        gate([x, y, dy].map(|v| part(v, piece, c)), mean, slope, g, sum, product, past);
    });
    normed(s, statistics, &sums, out);
}

/// Sums of g and g * xhat from those of g and g * (x - mean).
fn normed(s: &Shape, statistics: &[f32], sums: &[f64], out: &mut [f32]) {
    let c = s.c;
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
    let past = rows::past(dx);
    rows::fill(&rows::pieces(&s.starts, c), c, dx, |piece, dx| {
        let (mean, _) = of_sample(s, statistics, piece.sample);
        let (factor, (mean_g, slant)) = (&factors[piece.sample], &means[piece.sample]);
        let of = [mean, factor, &beta, mean_g, slant];
        centred(part(x, piece, c), part(dy, piece, c), of, slope, dx, past);
    });
}
