//! One row of y after the other: the input rows that it takes are added up along z and y, then that line along x. A line stays
//! in the first cache, cut by channels where it is long. Two cores of a Zen 5, bf16, batch of 4, milliseconds in place of those
//! of one axis after the other, 2026-11-22: means over 4^3 of 64^3 with 32 channels 1.9 in place of 5.6, their gradient 5.3 in
//! place of 36.

use super::Shape;
use crate::element::Element;
use crate::memory::Scratch;
use crate::wide;
use rayon::prelude::*;

/// Values of a line that stay in the first cache.
const LINE: usize = 6 << 10;
/// Channels that are summed in registers.
const STRIP: usize = 32;

/// Non-zero stretch of a matrix row: index of its first weight, and the weights.
type Band<'a> = (usize, &'a [f32]);

fn band(row: &[f32]) -> Band<'_> {
    let first = row.iter().position(|&w| w != 0.0).unwrap_or(0);
    let end = row.iter().rposition(|&w| w != 0.0).map_or(0, |l| l + 1);
    (first, &row[first..end.max(first)])
}

wide! {
    /// line += weight * x, of `width` channels of voxels that lie `stride` and `width` apart.
    fn add<X: Element>(weight: f32, x: &[X], stride: usize, line: &mut [f32], width: usize) {
        let runs = if width == stride { [usize::MAX; 2] } else { [width, stride] };
        for (line, x) in line.chunks_mut(runs[0]).zip(x.chunks(runs[1])) {
            line.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * x.to_f32());
        }
    }
}

/// Weighted sum of voxels of `width` channels, of those from `c` on.
#[inline(always)]
fn sum<const N: usize>(weights: &[f32], line: &[f32], width: usize, c: usize) -> [f32; N] {
    let mut sums = [0f32; N];
    for (voxel, weight) in line.chunks_exact(width).zip(weights) {
        let voxel: &[f32; N] = voxel[c..c + N].try_into().expect("N channels");
        for i in 0..N {
            sums[i] += weight * voxel[i];
        }
    }
    sums
}

wide! {
    /// `width` channels of voxels of y, `stride` apart: sums over `bands` of the voxels of a line that begins with voxel `first`.
    fn across<Y: Element>(bands: &[Band], line: &[f32], first: usize, width: usize, y: &mut [Y], stride: usize) {
        for (y, (k, weights)) in y.chunks_mut(stride).zip(bands) {
            let line = &line[(k - first.min(*k)) * width..];
            let whole = width / STRIP * STRIP;
            for c in (0..whole).step_by(STRIP) {
                let y: &mut [Y; STRIP] = (&mut y[c..c + STRIP]).try_into().expect("STRIP channels");
                let sums = sum::<STRIP>(weights, line, width, c);
                for i in 0..STRIP {
                    y[i] = Y::from_f32(sums[i]);
                }
            }
            for (c, y) in (whole..).zip(&mut y[whole..width]) {
                *y = Y::from_f32(sum::<1>(weights, line, width, c)[0]);
            }
        }
    }
}

/// What lies between the axes is f32.
pub fn resample<X: Element, Y: Element>(s: &Shape, weights: &[f32], x: &[X], y: &mut [Y]) {
    let ([iz, iy, ix], [oz, oy, ox], c) = (s.input, s.output, s.c);
    // Per axis `[sample][row]`.
    let bands = [0, 1, 2].map(|d| {
        let matrices = &weights[s.axis_start(d)..][..s.n * s.output[d] * s.input[d]];
        matrices.chunks_exact(s.input[d]).map(band).collect::<Vec<_>>()
    });
    y.par_chunks_mut(ox * c).enumerate().for_each(|(at, y)| {
        let (n, p, q) = (at / oy / oz, at / oy % oz, at % oy);
        let along = &bands[2][n * ox..][..ox];
        let first = along.iter().filter(|b| !b.1.is_empty()).map(|b| b.0).min().unwrap_or(0);
        let end = along.iter().map(|b| b.0 + b.1.len()).max().unwrap_or(0).max(first);
        let most = (LINE / (end - first).max(1)).next_multiple_of(STRIP).min(c);
        let mut line = Scratch::<f32>::new((end - first) * most);
        for channel in (0..c).step_by(most) {
            let width = most.min(c - channel);
            let line = &mut line[..(end - first) * width];
            line.fill(0.0);
            let ((i, along_z), (j, along_y)) = (bands[0][n * oz + p], bands[1][n * oy + q]);
            for (i, z) in (i..).zip(along_z) {
                for (j, w) in (j..).zip(along_y) {
                    let row = ((n * iz + i) * iy + j) * ix;
                    add(z * w, &x[(row + first) * c + channel..(row + end) * c], c, line, width);
                }
            }
            across(along, line, first, width, &mut y[channel..], c);
        }
    });
}
