//! Sums and extremes of many values, in an order that no number of cores changes, by vectors.

use crate::ops::rows;
use rayon::prelude::*;

const PIECE: usize = 1 << 14;
const LANES: usize = 16;
/// Nothing is below the first or above the second.
pub const NONE: (f32, f32) = (f32::INFINITY, f32::NEG_INFINITY);

/// Sum of f over all values.
pub fn total(data: &[f32], f: impl Fn(f64) -> f64 + Sync) -> f64 {
    let part = |part: &[f32]| {
        let (mut lanes, (groups, rest)) = ([0f64; LANES], part.as_chunks::<LANES>());
        for group in groups {
            (0..LANES).for_each(|l| lanes[l] += f(group[l] as f64));
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|&v| f(v as f64)).sum::<f64>()
    };
    let parts: Vec<f64> = data.par_chunks(PIECE).map(|values| rows::vectorised(|| part(values))).collect();
    parts.iter().sum()
}

/// Mean and standard deviation (of the population), in two passes.
pub fn moments(data: &[f32]) -> (f64, f64) {
    let n = data.len() as f64;
    let mean = total(data, |v| v) / n;
    (mean, (total(data, |v| (v - mean) * (v - mean)) / n).sqrt())
}

/// The range of both.
pub fn join(a: (f32, f32), b: (f32, f32)) -> (f32, f32) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Least and greatest value.
pub fn extremes(data: &[f32]) -> (f32, f32) {
    let part = |part: &[f32]| {
        let (mut lanes, (groups, rest)) = ([NONE; LANES], part.as_chunks::<LANES>());
        for group in groups {
            (0..LANES).for_each(|l| lanes[l] = join(lanes[l], (group[l], group[l])));
        }
        rest.iter().fold(lanes.into_iter().fold(NONE, join), |all, &v| join(all, (v, v)))
    };
    data.par_chunks(PIECE).map(|values| rows::vectorised(|| part(values))).reduce(|| NONE, join)
}
