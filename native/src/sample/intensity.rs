//! Intensity changes of augmentation. Parameters are drawn by the caller; noise is a pure
//! function of (seed, voxel), sums run over chunks of fixed size in order: the bits do not depend on the cores.

use super::interpolate::{Field, taps};
use super::{check, kspace, spline};
use crate::abi::Result;
use crate::ops::activation::exp;
use crate::ops::rows;
use crate::ops::view::Change;
use crate::volume::statistics::{extremes, moments};
use rayon::prelude::*;

exports! {
    /// Changes `values` [z][y][x] in place. kind and its parameters: 0 Gaussian noise (std), 1 Rician noise (std), 2 Gaussian
    /// blur (sigma in voxels), 3 brightness (factor), 4 contrast (factor about the mean, kept in range), 5 gamma (exponent;
    /// mean and std kept), 6 gamma of the inverted image, 7 low resolution (a zoom, or one per axis: nearest down, cubic up),
    /// 8 multiplicative noise (std), 9 motion ghosting (alpha, axis, every), 10 Gibbs ringing (planes, axis), 11 bias field
    /// (centre z, y, x), 12 power of the image scaled to [0, 1] (exponent), 13 power of the inverted image. clip: the result
    /// stays within the range that the values had.
    fn vx_intensity_wait(values: slice_mut[f32], z: u32, y: u32, x: u32, kind: u32, parameters: slice[f32], clip: bool, seed: u32) {
        let shape = [z, y, x].map(|n| n as usize);
        check("intensity", values.len(), shape)?;
        if parameters.is_empty() || parameters.iter().any(|a| !a.is_finite() || *a < 0.0) {
            return Err(format!("intensity: parameters {parameters:?}; they must be finite and not negative"));
        }
        if clip {
            apply_within(values, shape, kind, parameters, seed)?;
        } else {
            apply(values, shape, kind, parameters, seed)?;
        }
        Ok(0.0)
    }
}

/// `apply`, and the result within the range of the values before.
fn apply_within(values: &mut [f32], shape: [usize; 3], kind: u32, parameters: &[f32], seed: u32) -> Result<()> {
    let (low, high) = extremes(values);
    apply(values, shape, kind, parameters, seed)?;
    each(values, |_, v| v.clamp(low, high));
    Ok(())
}

/// All changes in turn; `reversal`: as of values in [0, 1], each within the range that it finds, and then scaled back.
pub fn apply_all(values: &mut [f32], shape: [usize; 3], changes: &[Change], reversal: bool) -> Result<()> {
    if !reversal {
        return changes.iter().try_for_each(|c| apply(values, shape, c.kind, &c.parameters, c.seed));
    }
    let (low, high) = extremes(values);
    let (low, range) = (low as f64, high as f64 - low as f64);
    if changes.is_empty() || range <= 0.0 {
        return Ok(());
    }
    each(values, |_, v| ((v as f64 - low) / range) as f32);
    changes.iter().try_for_each(|c| apply_within(values, shape, c.kind, &c.parameters, c.seed))?;
    each(values, |_, v| (v as f64 * range + low) as f32);
    Ok(())
}

/// Change `kind` of `vx_intensity_wait`, in place.
pub fn apply(values: &mut [f32], shape: [usize; 3], kind: u32, parameters: &[f32], seed: u32) -> Result<()> {
    let a = parameters[0];
    let number = |i: usize| parameters.get(i).map_or(0, |&v| v as usize);
    let axis = number(1).min(2);
    match kind {
        0 => each(values, |i, v| v + a * normal(seed, 2 * i)),
        1 => each(values, |i, v| {
            let (p, q) = (v + a * normal(seed, 2 * i), a * normal(seed, 2 * i + 1));
            let sign = (v > 0.0) as i32 - (v < 0.0) as i32;
            (p * p + q * q).sqrt() * sign as f32
        }),
        2 => blur(values, shape, a),
        3 => each(values, |_, v| v * a),
        4 => {
            let (mean, (low, high)) = (moments(values).0 as f32, extremes(values));
            each(values, |_, v| ((v - mean) * a + mean).clamp(low, high));
        }
        5 => gamma(values, a),
        6 => {
            each(values, |_, v| -v);
            gamma(values, a);
            each(values, |_, v| -v);
        }
        7 => low_resolution(values, shape, std::array::from_fn(|d| parameters.get(d).map_or(a, |&v| v) as f64)),
        8 => each(values, |i, v| v * (1.0 + a * normal(seed, 2 * i))),
        9 => kspace::apply(values, shape, axis, &kspace::ghosts(shape[axis], a as f64, number(2).max(1))),
        10 => kspace::apply(values, shape, axis, &kspace::rings(shape[axis], number(0))),
        11 => bias_field(values, shape, [0, 1, 2].map(|d| number(d) as f32)),
        12 | 13 => {
            let (low, high) = extremes(values);
            let range = (high - low).max(f32::MIN_POSITIVE);
            let power = |t: f32| power(t.clamp(0.0, 1.0), a);
            if kind == 12 {
                each(values, |_, v| power((v - low) / range) * range + low);
            } else {
                each(values, |_, v| high - power((high - v) / range) * range);
            }
        }
        _ => return Err(format!("intensity: there is no kind {kind}")),
    }
    Ok(())
}

/// Times 1 - sum over the axes of ((i - centre) / n)^2.
fn bias_field(values: &mut [f32], shape: [usize; 3], centre: [f32; 3]) {
    let square = |d: usize, i: usize| ((i as f32 - centre[d]) / shape[d] as f32).powi(2);
    values.par_chunks_mut(shape[2]).enumerate().for_each(|(row, line)| {
        let rest = 1.0 - square(0, row / shape[1]) - square(1, row % shape[1]);
        line.iter_mut().enumerate().for_each(|(x, v)| *v *= rest - square(2, x));
    });
}

fn each(values: &mut [f32], f: impl Fn(u64, f32) -> f32 + Sync) {
    rows::each(values, |first, part| {
        for (i, v) in part.iter_mut().enumerate() {
            *v = f((first + i) as u64, *v);
        }
    });
}

/// 64 random bits: number `counter` of `seed` (splitmix64 of Steele, Lea and Flood 2014).
fn bits(seed: u32, counter: u64) -> u64 {
    let mut h = (((seed as u64) << 32) ^ counter.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// Uniform number `counter` of `seed` in [0, 1).
pub(super) fn uniform(seed: u32, counter: u64) -> f32 {
    (bits(seed, counter) >> 40) as f32 / 16_777_216.0
}

/// Standard normal number `counter` of `seed` (Box and Muller).
#[inline(always)]
fn normal(seed: u32, counter: u64) -> f32 {
    let h = bits(seed, counter);
    let u = ((h >> 40) as i32 as f32 + 1.0) / 16_777_217.0;
    let turn = (h as i32 & 0xff_ffff) as f32 / 16_777_216.0;
    (-2.0 * ln(u)).sqrt() * cosine(turn)
}

/// ln(x) of a normal number above 0: the exponent, and 2 artanh((m - 1) / (m + 1)) of the mantissa in [sqrt(1/2), sqrt(2)).
#[inline(always)]
fn ln(x: f32) -> f32 {
    let bits = x.to_bits() as i32;
    let exponent = (bits - 0x3f35_04f3) >> 23;
    let m = f32::from_bits((bits - (exponent << 23)) as u32);
    let s = (m - 1.0) / (m + 1.0);
    let q = s * s;
    let series = 2.0 + q * (2.0 / 3.0 + q * (2.0 / 5.0 + q * (2.0 / 7.0 + q * (2.0 / 9.0))));
    exponent as f32 * std::f32::consts::LN_2 + s * series
}

/// cos(2 pi t) for 0 <= t < 1, as the sine of an angle within a quarter turn.
#[inline(always)]
fn cosine(t: f32) -> f32 {
    let x = ((t - 0.5).abs() - 0.25) * std::f32::consts::TAU;
    let q = x * x;
    let mut p = 1.0 / 6_227_020_800.0;
    for factor in [-1.0 / 39_916_800.0, 1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0] {
        p = p * q + factor;
    }
    p * x
}

/// t^a for t from 0 on.
#[inline(always)]
fn power(t: f32, a: f32) -> f32 {
    let least = if a == 0.0 { 1.0 } else { 0.0 };
    if t < f32::MIN_POSITIVE { least } else { exp(a * ln(t)) }
}

/// Min-max to [0, 1], power, back, then the old mean and standard deviation.
fn gamma(values: &mut [f32], exponent: f32) {
    let (mean, std) = moments(values);
    let (low, high) = extremes(values);
    let range = high - low + 1e-7;
    each(values, |_, v| power(((v - low) / range).max(0.0), exponent) * range + low);
    let (new_mean, new_std) = moments(values);
    let scale = std / (new_std + 1e-8);
    each(values, |_, v| ((v as f64 - new_mean) * scale + mean) as f32);
}

/// Weights of a Gaussian, cut at 4 sigma.
pub fn bell(sigma: f32) -> Vec<f32> {
    let radius = (4.0 * sigma + 0.5) as i64;
    let bell: Vec<f32> = (-radius..=radius).map(|k| (-0.5 * (k as f32 / sigma).powi(2)).exp()).collect();
    let total: f32 = bell.iter().sum();
    bell.iter().map(|w| w / total).collect()
}

/// Separable Gaussian, cut at 4 sigma, boundary reflected about the outer faces (scipy.ndimage.gaussian_filter).
fn blur(values: &mut [f32], shape: [usize; 3], sigma: f32) {
    if sigma == 0.0 {
        return;
    }
    let bell = bell(sigma);
    let radius = bell.len() as i64 / 2;
    let strides = [shape[1] * shape[2], shape[2], 1];
    let (nx, side) = (shape[2], bell.len() / 2);
    let reflect = |i: i64, n: usize| {
        let j = i.rem_euclid(2 * n as i64) as usize;
        j.min(2 * n - 1 - j)
    };
    for d in 0..3 {
        let source = values.to_vec();
        values.par_chunks_mut(nx).enumerate().with_min_len(8).for_each(|(row, line)| {
            let (base, at) = (row * nx, [row / shape[1], row % shape[1]]);
            let wide: Vec<f32> = match d {
                2 => (0..nx + 2 * side).map(|i| source[base + reflect(i as i64 - radius, nx)]).collect(),
                _ => Vec::new(),
            };
            rows::vectorised(|| {
                line.fill(0.0);
                for (k, w) in bell.iter().enumerate() {
                    let from = match d {
                        2 => &wide[k..],
                        _ => {
                            &source[base - at[d] * strides[d]
                                + reflect(at[d] as i64 + k as i64 - radius, shape[d]) * strides[d]..]
                        }
                    };
                    line.iter_mut().zip(from).for_each(|(v, s)| *v += w * s);
                }
            });
        });
    }
}

/// The shape at `zoom` times the size of each axis.
pub fn coarser(shape: [usize; 3], zoom: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|d| ((shape[d] as f64 * zoom[d]).round() as usize).clamp(1, shape[d]))
}

/// Nearest voxels down to `zoom` times the size of each axis, cubic spline up again, within the range of the voxels kept
/// (batchgenerators resizes with scikit-image, which clips).
fn low_resolution(values: &mut [f32], shape: [usize; 3], zoom: [f64; 3]) {
    let small = coarser(shape, zoom);
    let ratio: [f64; 3] = std::array::from_fn(|d| shape[d] as f64 / small[d] as f64);
    let nearest = |d: usize, i: usize| (((i as f64 + 0.5) * ratio[d]) as usize).min(shape[d] - 1);
    let mut coarse = Vec::with_capacity(small.iter().product());
    for z in 0..small[0] {
        for y in 0..small[1] {
            let base = (nearest(0, z) * shape[1] + nearest(1, y)) * shape[2];
            coarse.extend((0..small[2]).map(|x| values[base + nearest(2, x)]));
        }
    }
    let (least, most) = extremes(&coarse);
    let mut coefficients = vec![0.0; coarse.len()];
    spline::prefilter(&coarse, small, [0; 3], small, &mut coefficients);
    let affine = std::array::from_fn(|r| std::array::from_fn(|c| if r == c { 1.0 / ratio[r] } else { 0.0 }));
    let (coefficients, size, low) = (&coefficients[..], small, [0; 3]);
    taps::<4>(&Field { coefficients, size, low, shape: small, affine: &affine, bend: None, fill: None }, shape, values);
    each(values, |_, v| v.clamp(least, most));
}
