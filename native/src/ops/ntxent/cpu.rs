//! Products in tiles of rows, softmax in f64; every sum runs in column order.

use super::left_out;
use rayon::prelude::*;

const LANES: usize = 16;
/// Rows of a tile: a tile of either factor stays in the cache.
const TILE: usize = 16;

/// [teacher; student].
pub fn stack(teacher: &[f32], student: &[f32]) -> Vec<f32> {
    [teacher, student].concat()
}

/// <a, b> in f32 lanes.
fn inner(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    a.zip(b).for_each(|(a, b)| (0..LANES).for_each(|i| lanes[i] += a[i] * b[i]));
    lanes.iter().sum::<f32>() + rest
}

/// out `[rows of a][rows of b]` = factor * a b^T.
pub fn products(a: &[f32], b: &[f32], c: usize, factor: f32, out: &mut [f32]) {
    let columns = b.len() / c;
    out.par_chunks_mut(TILE * columns).zip(a.par_chunks(TILE * c)).for_each(|(out, a)| {
        for first in (0..columns).step_by(TILE) {
            for (out, a) in out.chunks_exact_mut(columns).zip(a.chunks_exact(c)) {
                for j in first..columns.min(first + TILE) {
                    out[j] = factor * inner(a, &b[j * c..][..c]);
                }
            }
        }
    });
}

/// logsumexp of row i without the columns left out.
fn log_sum(s: &[f32], i: usize, n: usize) -> f64 {
    let row = &s[i * 2 * n..][..2 * n];
    let out = left_out(i, n);
    let kept = || row.iter().enumerate().filter(|(j, _)| !out.contains(j)).map(|(_, &v)| v as f64);
    let top = kept().fold(f64::NEG_INFINITY, f64::max);
    top + kept().map(|v| (v - top).exp()).sum::<f64>().ln()
}

fn log_sums(s: &[f32], n: usize) -> Vec<f64> {
    (0..2 * n).into_par_iter().map(|i| log_sum(s, i, n)).collect()
}

pub fn loss(s: &[f32], n: usize) -> f64 {
    let sums = log_sums(s, n);
    (0..2 * n).map(|i| sums[i] - s[i * 2 * n + (i + n) % (2 * n)] as f64).sum::<f64>() / (2 * n) as f64
}

/// Share of the rows whose positive is more similar than every negative.
pub fn accuracy(s: &[f32], n: usize) -> f64 {
    let found = |&i: &usize| {
        let row = &s[i * 2 * n..][..2 * n];
        let (positive, out) = ((i + n) % (2 * n), left_out(i, n));
        (0..2 * n).all(|j| j == positive || out.contains(&j) || row[j] < row[positive])
    };
    (0..2 * n).into_par_iter().filter(found).count() as f64 / (2 * n) as f64
}

/// ds: row k of the student is row n + k of R; factor carries dy / (2n temperature).
pub fn gradient(s: &[f32], rows: &[f32], n: usize, c: usize, factor: f64, ds: &mut [f32]) {
    let sums = log_sums(s, n);
    let part = |i: usize, j: usize| {
        let target = if (i + n) % (2 * n) == j { 1.0 } else { 0.0 };
        if left_out(i, n).contains(&j) { 0.0 } else { (s[i * 2 * n + j] as f64 - sums[i]).exp() - target }
    };
    ds.par_chunks_mut(c).enumerate().for_each(|(k, ds)| {
        ds.fill(0.0);
        for (j, row) in rows.chunks_exact(c).enumerate() {
            let weight = (factor * (part(n + k, j) + part(j, n + k))) as f32;
            if weight != 0.0 {
                ds.iter_mut().zip(row).for_each(|(d, r)| *d += weight * r);
            }
        }
    });
}
