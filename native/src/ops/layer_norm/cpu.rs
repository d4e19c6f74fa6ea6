//! The CPU path. Sums over a row run in 16 lanes that are added at its end: one order on every processor.

use crate::ops::rows::{self, Piece};

const LANES: usize = 16;

/// Sum over a row of `at(i)`.
#[inline(always)]
fn sum(c: usize, at: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    for start in (0..c - c % LANES).step_by(LANES) {
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += at(start + j);
        }
    }
    (c - c % LANES..c).for_each(|i| lanes[i % LANES] += at(i));
    lanes.iter().sum()
}

fn pieces(c: usize, values: usize) -> Vec<Piece> {
    rows::pieces(&[0, values / c], c)
}

/// `[rows][2]`: mean, 1 / sqrt(variance + eps); the variance from differences to the mean.
pub fn statistics(c: usize, x: &[f32], eps: f32, out: &mut [f32]) {
    rows::fill(&pieces(c, x.len()), 2, out, |piece, out| {
        for (out, x) in out.chunks_exact_mut(2).zip(x[piece.rows.start * c..].chunks_exact(c)) {
            let mean = sum(c, |i| x[i]) / c as f32;
            let variance = sum(c, |i| (x[i] - mean) * (x[i] - mean)) / c as f32;
            out.copy_from_slice(&[mean, 1.0 / (variance + eps).sqrt()]);
        }
    });
}

/// y = gamma * xhat + beta.
pub fn forward(c: usize, x: &[f32], statistics: &[f32], gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    let (gamma, beta) = (&gamma[..c], &beta[..c]);
    rows::fill(&pieces(c, x.len()), c, y, |piece, y| {
        let at = piece.rows.start;
        let rows = x[at * c..].chunks_exact(c).zip(statistics[2 * at..].chunks_exact(2));
        for (y, (x, s)) in y.chunks_exact_mut(c).zip(rows) {
            for i in 0..c {
                y[i] = (x[i] - s[0]) * s[1] * gamma[i] + beta[i];
            }
        }
    });
}

/// `[2][c]`: sums over rows of dy and of dy * xhat.
pub fn grad_affine(c: usize, x: &[f32], statistics: &[f32], dy: &[f32], out: &mut [f32]) {
    let sums = rows::sums(&pieces(c, x.len()), 1, 2 * c, |piece, sums| {
        let (beta, gamma) = sums.split_at_mut(c);
        for row in piece.rows.clone() {
            let (x, dy, s) = (&x[row * c..][..c], &dy[row * c..][..c], &statistics[2 * row..][..2]);
            for i in 0..c {
                beta[i] += dy[i] as f64;
                gamma[i] += (dy[i] * ((x[i] - s[0]) * s[1])) as f64;
            }
        }
    });
    out.iter_mut().zip(sums).for_each(|(o, s)| *o = s as f32);
}

/// dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * gamma.
pub fn grad_input(c: usize, x: &[f32], statistics: &[f32], gamma: &[f32], dy: &[f32], dx: &mut [f32]) {
    let gamma = &gamma[..c];
    rows::fill(&pieces(c, x.len()), c, dx, |piece, dx| {
        for (dx, row) in dx.chunks_exact_mut(c).zip(piece.rows.clone()) {
            let (x, dy, s) = (&x[row * c..][..c], &dy[row * c..][..c], &statistics[2 * row..][..2]);
            let mean_g = sum(c, |i| dy[i] * gamma[i]) / c as f32;
            let mean_gx = sum(c, |i| dy[i] * gamma[i] * ((x[i] - s[0]) * s[1])) / c as f32;
            for i in 0..c {
                dx[i] = s[1] * (dy[i] * gamma[i] - mean_g - (x[i] - s[0]) * s[1] * mean_gx);
            }
        }
    });
}
