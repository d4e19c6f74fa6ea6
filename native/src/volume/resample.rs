//! Resizing with the semantics of skimage.transform.resize at order 3, one axis at a time, f64 inside.

use super::statistics::{NONE, extremes, join};
use rayon::prelude::*;

/// Square root of 3 less 2: the pole of the cubic B-spline.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Terms of the causal start value; POLE^24 is 2e-14.
const HORIZON: usize = 24;
/// Edge samples that SciPy repeats on either side in its mode "nearest".
const PAD: usize = 12;
/// Lines worked on together, so that one instruction serves several.
const LANES: usize = 32;

/// What lies beyond the border.
#[derive(Clone, Copy, PartialEq)]
pub enum Border {
    /// The outermost sample again (skimage "edge").
    Edge,
    /// Mirrored about the outermost sample (skimage "reflect").
    Mirror,
}

/// Size after resampling, of one axis: n * old / new, ties to even, at least 1.
pub fn resized(n: usize, old: f64, new: f64) -> usize {
    ((old / new * n as f64).round_ties_even() as usize).max(1)
}

/// The one axis to treat apart: more than 3 times as thick as the thinnest, and the only one so thick.
pub fn separate_axis(spacing: [f64; 3]) -> Option<usize> {
    let max = spacing.iter().copied().fold(f64::MIN, f64::max);
    let min = spacing.iter().copied().fold(f64::MAX, f64::min);
    let thick: Vec<usize> = (0..3).filter(|&i| spacing[i] == max).collect();
    (max / min > 3.0 && thick.len() == 1).then(|| thick[0])
}

/// Cubic resize of [z, y, x] data. The result is clipped to the range of the data: overall, or per slice along
/// `apart`, which then goes by nearest neighbour. With `smooth` (and no `apart`) shrinking axes are blurred first.
pub fn resize(
    data: Vec<f32>,
    from: [usize; 3],
    to: [usize; 3],
    border: Border,
    apart: Option<usize>,
    smooth: bool,
) -> Vec<f32> {
    if from == to {
        return data;
    }
    let ranges = ranges(&data, from, apart);
    let (mut data, mut shape) = (data, from);
    if smooth {
        for axis in 0..3 {
            let sigma = (from[axis] as f64 / to[axis] as f64 - 1.0) / 2.0;
            if sigma > 0.0 {
                data = along(&data, shape, axis, from[axis], |line, out| blur(line, out, sigma));
            }
        }
    }
    // The axis that shrinks most goes first, so that the others have less to do.
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| (to[a] * from[b]).cmp(&(to[b] * from[a])));
    for axis in order {
        if Some(axis) != apart && to[axis] != shape[axis] {
            data = along(&data, shape, axis, to[axis], |line, out| cubic(line, out, border));
            shape[axis] = to[axis];
        }
    }
    clip(&mut data, shape, apart, &ranges);
    match apart {
        Some(axis) if to[axis] != from[axis] => along(&data, shape, axis, to[axis], nearest),
        _ => data,
    }
}

/// (outer, inner) extents around an axis.
fn around(shape: [usize; 3], axis: usize) -> (usize, usize) {
    (shape[..axis].iter().product(), shape[axis + 1..].iter().product())
}

fn ranges(data: &[f32], shape: [usize; 3], apart: Option<usize>) -> Vec<(f32, f32)> {
    let Some(axis) = apart else { return vec![extremes(data)] };
    let (_, inner) = around(shape, axis);
    let mut out = vec![NONE; shape[axis]];
    for (i, row) in data.chunks(inner).enumerate() {
        let range = &mut out[i % shape[axis]];
        *range = row.iter().fold(*range, |all, &v| join(all, (v, v)));
    }
    out
}

fn clip(data: &mut [f32], shape: [usize; 3], apart: Option<usize>, ranges: &[(f32, f32)]) {
    let (inner, count) = apart.map_or((data.len(), 1), |axis| (around(shape, axis).1, shape[axis]));
    for (i, row) in data.chunks_mut(inner).enumerate() {
        let (lo, hi) = ranges[i % count];
        row.iter_mut().for_each(|v| *v = v.clamp(lo, hi));
    }
}

struct Target(*mut f32);
unsafe impl Sync for Target {}

type Lane = [f64; LANES];

/// Maps every line along `axis` from n to m samples: `work` gets up to 32 lines side by side.
fn along(
    data: &[f32],
    shape: [usize; 3],
    axis: usize,
    m: usize,
    work: impl Fn(&[Lane], &mut [Lane]) + Sync,
) -> Vec<f32> {
    let (outer, inner) = around(shape, axis);
    let n = shape[axis];
    let lines = outer * inner;
    let mut out = vec![0f32; lines * m];
    let target = Target(out.as_mut_ptr());
    (0..lines.div_ceil(LANES)).into_par_iter().for_each_init(
        || (vec![[0f64; LANES]; n], vec![[0f64; LANES]; m]),
        |(line, result), block| {
            let target = &target;
            let first = block * LANES;
            let count = LANES.min(lines - first);
            let base = |l: usize, length: usize| (l / inner) * length * inner + l % inner;
            for l in 0..count {
                let at = base(first + l, n);
                line.iter_mut().enumerate().for_each(|(k, row)| row[l] = data[at + k * inner] as f64);
            }
            work(line, result);
            for l in 0..count {
                let at = base(first + l, m);
                // Every line has its own places in `out`.
                result.iter().enumerate().for_each(|(k, row)| unsafe { *target.0.add(at + k * inner) = row[l] as f32 });
            }
        },
    );
    out
}

/// Source coordinate of sample `j`: (j + 0.5) n / m - 0.5.
fn coordinate(j: usize, n: usize, m: usize) -> f64 {
    (j as f64 + 0.5) * (n as f64 / m as f64) - 0.5
}

/// Index mirrored about the first and the last sample.
fn mirrored(i: isize, n: usize) -> usize {
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let i = i.rem_euclid(period);
    (if i >= n as isize { period - i } else { i }) as usize
}

/// B-spline coefficients of mirror-symmetric samples, in place (Unser 1999, box 2; sums as in SciPy).
fn prefilter(c: &mut [Lane]) {
    let n = c.len();
    if n == 1 {
        return;
    }
    let mut start = [0f64; LANES];
    for k in 0..HORIZON {
        let weight = POLE.powi(k as i32);
        let row = &c[mirrored(k as isize, n)];
        (0..LANES).for_each(|l| start[l] += weight * row[l]);
    }
    c[0] = start;
    for k in 1..n {
        let before = c[k - 1];
        (0..LANES).for_each(|l| c[k][l] += POLE * before[l]);
    }
    let (last, before) = (c[n - 1], c[n - 2]);
    (0..LANES).for_each(|l| c[n - 1][l] = POLE / (POLE * POLE - 1.0) * (last[l] + POLE * before[l]));
    for k in (0..n - 1).rev() {
        let after = c[k + 1];
        (0..LANES).for_each(|l| c[k][l] = POLE * (after[l] - c[k][l]));
    }
    // Gain (1 - z)(1 - 1/z) = 6.
    c.iter_mut().flatten().for_each(|v| *v *= 6.0);
}

fn cubic(line: &[Lane], out: &mut [Lane], border: Border) {
    let (n, m) = (line.len(), out.len());
    let pad = if border == Border::Edge { PAD } else { 0 };
    let mut c = vec![line[0]; pad];
    c.extend_from_slice(line);
    c.extend(vec![line[n - 1]; pad]);
    prefilter(&mut c);
    for (j, row) in out.iter_mut().enumerate() {
        let mut x = coordinate(j, n, m);
        if border == Border::Mirror && n > 1 {
            let last = (n - 1) as f64;
            x = if x < 0.0 {
                -x
            } else if x > last {
                2.0 * last - x
            } else {
                x
            };
        }
        let (i, t) = (x.floor() as isize + pad as isize, x - x.floor());
        let u = 1.0 - t;
        let weights = [
            u * u * u / 6.0,
            (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0,
            (4.0 - 6.0 * u * u + 3.0 * u * u * u) / 6.0,
            t * t * t / 6.0,
        ];
        *row = [0.0; LANES];
        for (k, w) in weights.into_iter().enumerate() {
            let tap = &c[mirrored(i + k as isize - 1, n + 2 * pad)];
            (0..LANES).for_each(|l| row[l] += w * tap[l]);
        }
    }
}

fn nearest(line: &[Lane], out: &mut [Lane]) {
    let (n, m) = (line.len(), out.len());
    for (j, row) in out.iter_mut().enumerate() {
        *row = line[((coordinate(j, n, m) + 0.5).floor().max(0.0) as usize).min(n - 1)];
    }
}

/// Gaussian of `sigma` samples, cut at 4 sigma, mirrored at the border (scipy.ndimage.gaussian_filter1d).
fn blur(line: &[Lane], out: &mut [Lane], sigma: f64) {
    let radius = (4.0 * sigma + 0.5) as isize;
    let weight = |k: isize| (-0.5 * (k * k) as f64 / (sigma * sigma)).exp();
    let total = (-radius..=radius).map(weight).sum::<f64>();
    for (j, row) in out.iter_mut().enumerate() {
        *row = [0.0; LANES];
        for k in -radius..=radius {
            let w = weight(k) / total;
            let tap = &line[mirrored(j as isize + k, line.len())];
            (0..LANES).for_each(|l| row[l] += w * tap[l]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_half_to_even() {
        let cases = [(240, 1.0, 0.7, 343), (5, 0.5, 1.0, 2), (7, 0.5, 1.0, 4), (1, 0.3, 1.0, 1)];
        for (n, old, new, want) in cases {
            assert_eq!(resized(n, old, new), want);
        }
    }

    #[test]
    fn one_axis_is_separate_above_a_ratio_of_three() {
        assert_eq!(separate_axis([3.0, 1.0, 1.0]), None);
        assert_eq!(separate_axis([3.01, 1.0, 1.0]), Some(0));
        assert_eq!(separate_axis([1.0, 4.0, 4.0]), None);
    }

    #[test]
    fn cubic_six_to_nine_is_skimage_clipped() {
        // skimage 0.2x: resize([0,0,1,0,0,3], 9, order 3, edge), before its clip to [0, 3].
        let want = [0.025070, -0.121606, 0.159716, 0.927882, 0.681252, -0.201033, -0.275464, 1.534138, 3.224889];
        let data = vec![0.0, 0.0, 1.0, 0.0, 0.0, 3.0];
        for axis in 0..3 {
            let (mut from, mut to) = ([1; 3], [1; 3]);
            (from[axis], to[axis]) = (6, 9);
            let got = resize(data.clone(), from, to, Border::Edge, None, false);
            for (g, w) in got.iter().zip(want) {
                assert!((*g as f64 - f64::clamp(w, 0.0, 3.0)).abs() < 1e-6, "{g} {w}");
            }
        }
    }

    #[test]
    fn nearest_four_to_eight() {
        let got = resize(vec![0.0, 1.0, 2.0, 3.0], [4, 1, 1], [8, 1, 1], Border::Edge, Some(0), false);
        assert_eq!(got, [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
    }
}
