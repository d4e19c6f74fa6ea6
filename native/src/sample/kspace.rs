//! Artefacts that a scanner makes in k-space. Both multiply the spectrum along one axis, which is a circular convolution
//! along that axis: the filter is transformed, not the volume.

use crate::ops::rows;
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Real and imaginary part of the inverse transform of a real filter on frequencies 0, 1 .. n - 1.
pub fn response(filter: &[f64]) -> [Vec<f32>; 2] {
    let n = filter.len();
    [0.0, 0.25].map(|turn| {
        let value = |i: usize| -> f64 {
            let terms = filter.iter().enumerate();
            terms.map(|(f, w)| w * ((f * i % n) as f64 / n as f64 * TAU - turn * TAU).cos()).sum()
        };
        (0..n).map(|i| (value(i) / n as f64) as f32).collect()
    })
}

/// Values that are summed together, so that they stay in the first cache.
const PART: usize = 1024;

/// |values * filter|: the magnitude after the filter has been applied along `axis`.
pub fn apply(values: &mut [f32], shape: [usize; 3], axis: usize, filter: &[f64]) {
    let n = filter.len();
    let source = values.to_vec();
    // Twice in a row, so that a shift by i is the stretch that begins at n - i.
    let [real, imaginary] = response(filter).map(|r| [&r[..], &r[..]].concat());
    let inner: usize = shape[axis + 1..].iter().product();
    let width = if inner == 1 { n } else { inner };
    let size = width.min(PART.max(n));
    values.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
        for (part, out) in out.chunks_mut(size).enumerate() {
            let (mut re, mut im) = (vec![0f32; out.len()], vec![0f32; out.len()]);
            rows::vectorised(|| {
                for j in 0..n {
                    if inner == 1 {
                        let v = source[row * n + j];
                        re.iter_mut().zip(&real[n - j..]).for_each(|(s, r)| *s += r * v);
                        im.iter_mut().zip(&imaginary[n - j..]).for_each(|(s, r)| *s += r * v);
                    } else {
                        let (k, line) = (row % n + n - j, &source[(row / n * n + j) * inner + part * size..]);
                        re.iter_mut().zip(line).for_each(|(s, v)| *s += real[k] * v);
                        im.iter_mut().zip(line).for_each(|(s, v)| *s += imaginary[k] * v);
                    }
                }
            });
            out.iter_mut().zip(&re).zip(&im).for_each(|((out, re), im)| *out = (re * re + im * im).sqrt());
        }
    });
}

/// Motion ghosting: every `every`-th of n planes of k-space, from the zero frequency on and without the last plane, is
/// multiplied by `alpha`.
pub fn ghosts(n: usize, alpha: f64, every: usize) -> Vec<f64> {
    (0..n).map(|f| if f % every == 0 && f + 1 < n { alpha } else { 1.0 }).collect()
}

/// Gibbs ringing: only the `planes` lowest of n frequencies stay.
pub fn rings(n: usize, planes: usize) -> Vec<f64> {
    let first = n.saturating_sub(planes) / 2;
    let centred = |f: usize| (f + n / 2) % n;
    let keep = |f: usize| centred(f) >= first && centred(f) < first + planes;
    (0..n).map(|f| if keep(f) { 1.0 } else { 0.0 }).collect()
}
