//! One axis after the other, each a banded matrix over contiguous rows: z first, where rows are longest.

use super::Shape;
use rayon::prelude::*;

/// Values of one task: a row piece that stays in the first cache.
const PIECE: usize = 4096;

/// Non-zero stretch of a matrix row: index of its first weight, and the weights.
fn band(row: &[f32]) -> (usize, &[f32]) {
    let first = row.iter().position(|&w| w != 0.0).unwrap_or(0);
    let end = row.iter().rposition(|&w| w != 0.0).map_or(0, |l| l + 1);
    (first, &row[first..end.max(first)])
}

/// y `[outer][o][inner]` from x `[outer][g][inner]`; the matrix of sample `outer / per_sample` acts on the middle axis.
fn axis(matrices: &[f32], g: usize, o: usize, inner: usize, per_sample: usize, x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(inner).enumerate().for_each(|(index, y)| {
        let (outer, row) = (index / o, index % o);
        let (first, weights) = band(&matrices[(outer / per_sample * o + row) * g..][..g]);
        let x = &x[(outer * g + first) * inner..];
        y.par_chunks_mut(PIECE).enumerate().for_each(|(piece, y)| {
            y.fill(0.0);
            for (i, &w) in weights.iter().enumerate() {
                let x = &x[i * inner + piece * PIECE..][..y.len()];
                y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x);
            }
        });
    });
}

pub fn resample(s: &Shape, weights: &[f32], x: &[f32], y: &mut [f32]) {
    let ([iz, iy, ix], [oz, oy, ox]) = (s.input, s.output);
    let mut planes = vec![0f32; s.n * oz * iy * ix * s.c];
    axis(&weights[s.axis_start(0)..], iz, oz, iy * ix * s.c, 1, x, &mut planes);
    let mut lines = vec![0f32; s.n * oz * oy * ix * s.c];
    axis(&weights[s.axis_start(1)..], iy, oy, ix * s.c, oz, &planes, &mut lines);
    axis(&weights[s.axis_start(2)..], ix, ox, s.c, oz * oy, &lines, y);
}
