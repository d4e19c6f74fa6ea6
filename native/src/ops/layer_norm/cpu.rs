//! The CPU path. Sums over a row run in 16 lanes that are added at its end: one order on every processor.

use crate::element::{Element, convert};
use crate::ops::rows::{self, Piece};
use crate::wide;

const LANES: usize = 16;

/// Sum over two rows of `of(a, b)`.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = left.remainder().iter().zip(right.remainder());
    for (a, b) in left.zip(right) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += of(*a, *b));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, (a, b))| *lane += of(*a, *b));
    lanes.iter().sum()
}

/// The rows of a piece, of `width` values each.
#[inline(always)]
fn part<'a, T>(values: &'a [T], piece: &Piece, width: usize) -> &'a [T] {
    &values[piece.rows.start * width..piece.rows.end * width]
}

fn pieces(c: usize, values: usize) -> Vec<Piece> {
    rows::pieces(&[0, values / c], c)
}

wide! {
    /// Mean and 1 / sqrt(variance + eps) of rows of `c` values.
    fn moments<E: Element>(c: usize, x: &[E], eps: f32, out: &mut [f32]) {
        let mut row = vec![0f32; c];
        for (out, x) in out.chunks_exact_mut(2).zip(x.chunks_exact(c)) {
            convert(x, &mut row);
            let mean = sum(&row, &row, |x, _| x) / c as f32;
            let variance = sum(&row, &row, |x, _| (x - mean) * (x - mean)) / c as f32;
            out.copy_from_slice(&[mean, 1.0 / (variance + eps).sqrt()]);
        }
    }
}

wide! {
    /// Rows of gamma * xhat + beta.
    fn affine<E: Element>(x: &[E], statistics: &[f32], gamma: &[f32], beta: &[f32], y: &mut [E]) {
        let c = gamma.len();
        let beta = &beta[..c];
        let rows = x.chunks_exact(c).zip(statistics.chunks_exact(2));
        for (y, (x, s)) in y.chunks_exact_mut(c).zip(rows) {
            for i in 0..c {
                y[i] = E::from_f32((x[i].to_f32() - s[0]) * s[1] * gamma[i] + beta[i]);
            }
        }
    }
}

wide! {
    /// Adds dy to beta and dy * xhat to gamma, row by row.
    fn add_affine<E: Element>(x: &[E], statistics: &[f32], dy: &[E], beta: &mut [f64], gamma: &mut [f64]) {
        let c = beta.len();
        let gamma = &mut gamma[..c];
        let rows = x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(statistics.chunks_exact(2));
        for ((x, dy), s) in rows {
            for i in 0..c {
                let dy = dy[i].to_f32();
                beta[i] += dy as f64;
                gamma[i] += (dy * ((x[i].to_f32() - s[0]) * s[1])) as f64;
            }
        }
    }
}

wide! {
    /// Rows of rstd * (g - mean(g) - xhat * mean(g * xhat)).
    fn slope<E: Element>(x: &[E], statistics: &[f32], gamma: &[f32], dy: &[E], dx: &mut [E]) {
        let c = gamma.len();
        let (mut g, mut xhat) = (vec![0f32; c], vec![0f32; c]);
        let rows = x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(statistics.chunks_exact(2));
        for (dx, ((x, dy), s)) in dx.chunks_exact_mut(c).zip(rows) {
            g.iter_mut().zip(dy.iter().zip(gamma)).for_each(|(g, (dy, gamma))| *g = dy.to_f32() * gamma);
            xhat.iter_mut().zip(x).for_each(|(xhat, x)| *xhat = (x.to_f32() - s[0]) * s[1]);
            let mean_g = sum(&g, &g, |g, _| g) / c as f32;
            let mean_gx = sum(&g, &xhat, |g, xhat| g * xhat) / c as f32;
            for (dx, (g, xhat)) in dx.iter_mut().zip(g.iter().zip(&xhat)) {
                *dx = E::from_f32(s[1] * (g - mean_g - xhat * mean_gx));
            }
        }
    }
}

/// `[rows][2]`: mean, 1 / sqrt(variance + eps); the variance from differences to the mean.
pub fn statistics<E: Element>(c: usize, x: &[E], eps: f32, out: &mut [f32]) {
    rows::fill(&pieces(c, x.len()), 2, out, |piece, out| moments(c, part(x, piece, c), eps, out));
}

/// y = gamma * xhat + beta.
pub fn forward<E: Element>(c: usize, x: &[E], statistics: &[f32], gamma: &[f32], beta: &[f32], y: &mut [E]) {
    rows::fill(&pieces(c, x.len()), c, y, |piece, y| {
        affine(part(x, piece, c), part(statistics, piece, 2), &gamma[..c], beta, y);
    });
}

/// `[2][c]`: sums over rows of dy and of dy * xhat.
pub fn grad_affine<E: Element>(c: usize, x: &[E], statistics: &[f32], dy: &[E], out: &mut [f32]) {
    let sums = rows::sums(&pieces(c, x.len()), 1, 2 * c, |piece, sums| {
        let (beta, gamma) = sums.split_at_mut(c);
        add_affine(part(x, piece, c), part(statistics, piece, 2), part(dy, piece, c), beta, gamma);
    });
    out.iter_mut().zip(sums).for_each(|(o, s)| *o = s as f32);
}

/// dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * gamma.
pub fn grad_input<E: Element>(c: usize, x: &[E], statistics: &[f32], gamma: &[f32], dy: &[E], dx: &mut [E]) {
    rows::fill(&pieces(c, x.len()), c, dx, |piece, dx| {
        slope(part(x, piece, c), part(statistics, piece, 2), &gamma[..c], part(dy, piece, c), dx);
    });
}
