//! One axis after the other, each a banded matrix over contiguous rows: z first, where rows are longest.

use super::Shape;
use crate::element::{Element, convert};
use crate::memory::Scratch;
use crate::ops::rows;
use crate::wide;
use rayon::prelude::*;

/// Values of one task: a row piece that stays in the first cache.
const PIECE: usize = 1024;

/// Non-zero stretch of a matrix row: index of its first weight, and the weights.
fn band(row: &[f32]) -> (usize, &[f32]) {
    let first = row.iter().position(|&w| w != 0.0).unwrap_or(0);
    let end = row.iter().rposition(|&w| w != 0.0).map_or(0, |l| l + 1);
    (first, &row[first..end.max(first)])
}

/// y `[outer][o][inner]` from x `[outer][g][inner]`; the matrix of sample `outer / per_sample` acts on the middle axis.
fn axis<X: Element, Y: Element>(matrices: &[f32], [g, o, inner, per_sample]: [usize; 4], x: &[X], y: &mut [Y]) {
    y.par_chunks_mut(inner).enumerate().for_each(|(index, y)| {
        let (outer, row) = (index / o, index % o);
        let (first, weights) = band(&matrices[(outer / per_sample * o + row) * g..][..g]);
        let x = &x[(outer * g + first) * inner..];
        let mut sum = [0f32; PIECE];
        y.chunks_mut(PIECE).enumerate().for_each(|(piece, y)| {
            let sum = &mut sum[..y.len()];
            weigh(weights, &x[piece * PIECE..], inner, sum);
            rows::vectorised(|| convert(sum, y));
        });
    });
}

wide! {
    /// sum[j] = sum over rows i of `inner` values, weights[i] * x[i][j].
    fn weigh<X: Element>(weights: &[f32], x: &[X], inner: usize, sum: &mut [f32]) {
        sum.fill(0.0);
        for (i, &w) in weights.iter().enumerate() {
            let x = &x[i * inner..][..sum.len()];
            sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += w * x.to_f32());
        }
    }
}

/// The values between the axes stay f32.
pub fn resample<X: Element, Y: Element>(s: &Shape, weights: &[f32], x: &[X], y: &mut [Y]) {
    let ([iz, iy, ix], [oz, oy, ox]) = (s.input, s.output);
    let mut planes = Scratch::<f32>::new(s.n * oz * iy * ix * s.c);
    axis(&weights[s.axis_start(0)..], [iz, oz, iy * ix * s.c, 1], x, &mut planes);
    let mut lines = Scratch::<f32>::new(s.n * oz * oy * ix * s.c);
    axis(&weights[s.axis_start(1)..], [iy, oy, ix * s.c, oz], &planes, &mut lines);
    axis(&weights[s.axis_start(2)..], [ix, ox, s.c, oz * oy], &lines, y);
}
