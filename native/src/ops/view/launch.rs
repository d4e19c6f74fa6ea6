//! The kernels of `kernel.cu` as the contract asks for them.

use super::{Change, Elastic, View};
use crate::abi::Result;
use crate::gpu::{self, At, NULL, Piece, Value, one_each, over};
use crate::launch;
use crate::sample::{self, elastic, intensity, kspace, spline};
use crate::tensor::Buffer;

/// Blocks that sum up values, at most: fixed, so that the bits do not depend on the card.
const PARTS: usize = 256;
/// Bytes of `Moments` of kernel.cu.
const MOMENTS: usize = 32;

/// `View` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sight {
    size: [i32; 3],
    low: [i32; 3],
    shape: [i32; 3],
    patch: [i32; 3],
    affine: [f64; 12],
    fill: f32,
    filled: i32,
}
impl Value for Sight {}

/// `Crop` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Crop {
    sign: [i32; 3],
    start: [i32; 3],
}
impl Value for Crop {}

/// All of a volume.
fn whole(shape: [usize; 3]) -> Sight {
    scaled(shape, shape, [1.0; 3])
}

/// From the whole of `size` to `patch`, `ratio` voxels of one for a voxel of the other.
fn scaled(size: [usize; 3], patch: [usize; 3], ratio: [f64; 3]) -> Sight {
    let [size, patch] = [size, patch].map(|v| v.map(|n| n as i32));
    let affine = std::array::from_fn(|i| if i % 5 == 0 { ratio[i / 5] } else { 0.0 });
    Sight { size, low: [0; 3], shape: size, patch, affine, fill: 0.0, filled: 0 }
}

/// Turns values `[z][y][x]` into cubic B-spline coefficients.
fn prefilter(at: At, size: [usize; 3]) -> Result<()> {
    for d in (0..3).filter(|&d| size[d] > 1) {
        let (n, inner) = (size[d], size[d + 1..].iter().product::<usize>());
        let (lines, start) = (size.iter().product::<usize>() / n, spline::start(n));
        let (weights, grid) = (gpu::upload(&start), one_each(lines));
        let (lines, starts) = (lines as i64, start.len() as i32);
        launch!("view_filter", grid, 256, 0, at, lines, n as i32, inner as i64, weights.at(), starts)?;
    }
    Ok(())
}

/// Mean, standard deviation and range.
fn moments(at: At, n: usize) -> Result<Piece> {
    let blocks = over(n)[0].min(PARTS);
    let (partial, out) = (gpu::scratch::<u8>(MOMENTS * blocks), gpu::scratch::<u8>(MOMENTS));
    launch!("view_sums", [blocks, 1, 1], 256, 256 * MOMENTS, at, n as i64, partial.at())?;
    launch!("view_moments", [1; 3], 32, 0, partial.at(), blocks as i32, n as i64, out.at())?;
    Ok(out)
}

fn scale(at: At, n: usize, factor: f32) -> Result<()> {
    launch!("view_scale", over(n), 256, 0, at, n as i64, factor)
}

fn gamma(at: At, n: usize, exponent: f32) -> Result<()> {
    let before = moments(at, n)?;
    launch!("view_gamma", over(n), 256, 0, at, n as i64, exponent, before.at())?;
    let after = moments(at, n)?;
    launch!("view_restore", over(n), 256, 0, at, n as i64, before.at(), after.at())
}

fn blur(at: At, shape: [usize; 3], sigma: f32) -> Result<()> {
    if sigma == 0.0 {
        return Ok(());
    }
    let (n, bell) = (shape.iter().product::<usize>(), intensity::bell(sigma));
    let (weights, radius) = (gpu::upload(&bell), bell.len() as i32 / 2);
    let (one, two) = (gpu::scratch::<f32>(n), gpu::scratch::<f32>(n));
    for (d, [from, to]) in [[at, one.at()], [one.at(), two.at()], [two.at(), at]].into_iter().enumerate() {
        let (side, inner) = (shape[d] as i32, shape[d + 1..].iter().product::<usize>() as i64);
        launch!("view_blur", over(n), 256, 0, from, n as i64, side, inner, weights.at(), radius, to)?;
    }
    Ok(())
}

/// Nearest voxels down, cubic spline up again, within the range of the voxels kept.
fn low_resolution(at: At, shape: [usize; 3], zoom: [f64; 3]) -> Result<()> {
    let small = intensity::coarser(shape, zoom);
    let ratio: [f64; 3] = std::array::from_fn(|d| shape[d] as f64 / small[d] as f64);
    let (n, coarse) = (small.iter().product::<usize>(), gpu::scratch::<f32>(small.iter().product()));
    launch!("view_nearest", over(n), 256, 0, scaled(shape, small, ratio), at, coarse.at())?;
    let range = moments(coarse.at(), n)?;
    prefilter(coarse.at(), small)?;
    let (sight, count) = (scaled(small, shape, ratio.map(|r| 1.0 / r)), shape.iter().product());
    launch!("view_taps", over(count), 256, 0, sight, coarse.at(), NULL, at)?;
    launch!("view_range", over(count), 256, 0, at, count as i64, 0i32, range.at())
}

/// |values * filter| along an axis.
fn spectral(at: At, shape: [usize; 3], axis: usize, filter: &[f64]) -> Result<()> {
    let (n, inner) = (shape.iter().product::<usize>(), shape[axis + 1..].iter().product::<usize>() as i64);
    let (response, source) = (gpu::upload(&kspace::response(filter).concat()), gpu::scratch::<f32>(n));
    gpu::copy(at, source.at(), 4 * n)?;
    launch!("view_spectral", over(n), 256, 0, source.at(), n as i64, shape[axis] as i32, inner, response.at(), at)
}

/// Displacements of the points of a patch: noise, smoothed along one axis after the other.
fn bend(of: &Elastic, patch: [usize; 3]) -> Result<Piece> {
    let (voxels, nodes, bell) = (patch.iter().product::<usize>(), patch.map(elastic::kept), elastic::bell(of.sigma));
    let (weights, radius, count) = (gpu::upload(&bell), bell.len() as i32 / 2, nodes.iter().product::<usize>());
    let (noise, fields) = (gpu::scratch::<f32>(voxels), gpu::scratch::<f32>(3 * count));
    let sizes = [nodes[0] * patch[1] * patch[2], nodes[0] * nodes[1] * patch[2], count];
    let (one, two) = (gpu::scratch::<f32>(sizes[0]), gpu::scratch::<f32>(sizes[1]));
    for d in 0..3 {
        let (first, seed) = ((d * voxels) as i64, of.seed as i32);
        launch!("view_uniform", over(voxels), 256, 0, voxels as i64, first, seed, noise.at())?;
        let field = At(fields.at().0 + 4 * (d * count) as u64);
        let passes =
            [(noise.at(), one.at(), patch[1] * patch[2]), (one.at(), two.at(), patch[2]), (two.at(), field, 1)];
        for (axis, (from, to, inner)) in passes.into_iter().enumerate() {
            let (n, inner, size) = (patch[axis] as i32, inner as i64, sizes[axis]);
            launch!("view_smooth", over(size), 256, 0, from, n, inner, weights.at(), radius, size as i64, to)?;
        }
    }
    scale(fields.at(), 3 * count, of.alpha as f32)?;
    Ok(fields)
}

fn change(at: At, shape: [usize; 3], change: &Change) -> Result<()> {
    let (n, &Change { kind, ref parameters, seed }) = (shape.iter().product::<usize>(), change);
    let (a, more) = (parameters[0], |i: usize| parameters.get(i).copied());
    let (number, axis) = (|i: usize| more(i).map_or(0, |v| v as usize), more(1).map_or(0, |v| (v as usize).min(2)));
    match kind {
        0 | 1 | 8 => launch!("view_noise", over(n), 256, 0, at, n as i64, kind as i32, a, seed as i32),
        2 => blur(at, shape, a),
        3 => scale(at, n, a),
        4 => {
            let of = moments(at, n)?;
            launch!("view_contrast", over(n), 256, 0, at, n as i64, a, of.at())
        }
        5 => gamma(at, n, a),
        6 => {
            scale(at, n, -1.0)?;
            gamma(at, n, a)?;
            scale(at, n, -1.0)
        }
        7 => low_resolution(at, shape, std::array::from_fn(|d| more(d).unwrap_or(a) as f64)),
        9 => spectral(at, shape, axis, &kspace::ghosts(shape[axis], a as f64, number(2).max(1))),
        10 => spectral(at, shape, axis, &kspace::rings(shape[axis], number(0))),
        11 => {
            let [cz, cy, cx] = [0, 1, 2].map(|d| number(d) as f32);
            launch!("view_bias", over(n), 256, 0, at, whole(shape), cz, cy, cx)
        }
        12 | 13 => {
            let (of, inverted) = (moments(at, n)?, (kind == 13) as i32);
            launch!("view_power", over(n), 256, 0, at, n as i64, a, inverted, of.at())
        }
        _ => Err(format!("view: there is no change {kind}")),
    }
}

/// Changes image `slot` of `out`; `reversal`: as of values in [0, 1], each within the range it finds.
pub fn changed(shape: [usize; 3], changes: &[Change], reversal: bool, out: &Buffer, slot: usize) -> Result<()> {
    let n = shape.iter().product::<usize>();
    let at = At(out.device_mut().0 + 4 * (slot * n) as u64);
    if !reversal {
        return changes.iter().try_for_each(|c| change(at, shape, c));
    }
    let range = |way: i32, of: &Piece| launch!("view_range", over(n), 256, 0, at, n as i64, way, of.at());
    let of = moments(at, n)?;
    range(1, &of)?;
    for c in changes {
        let before = moments(at, n)?;
        change(at, shape, c)?;
        range(0, &before)?;
    }
    range(2, &of)
}

/// The view, into image `slot` of `out`.
pub fn forward(view: &View, region: &Buffer, out: &Buffer, slot: usize) -> Result<()> {
    let voxels = view.patch.iter().product::<usize>();
    let at = At(out.device_mut().0 + 4 * (slot * voxels) as u64);
    let from = region.device();
    let [size, low, shape, patch] = [view.size, view.low, view.shape, view.patch].map(|v| v.map(|n| n as i32));
    let affine = std::array::from_fn(|i| view.affine[i / 4][i % 4]);
    let sight = Sight { size, low, shape, patch, affine, fill: view.fill, filled: 1 };
    if let (Some((sign, start)), None) = (sample::crop(&view.affine), &view.elastic) {
        let crop = Crop { sign: sign.map(|v| v as i32), start: start.map(|v| v as i32) };
        return launch!("view_crop", over(voxels), 256, 0, sight, crop, from, at);
    }
    let bend = view.elastic.as_ref().map(|of| bend(of, view.patch)).transpose()?;
    let moved = bend.as_ref().map_or(NULL, |b| b.at());
    if view.linear {
        return launch!("view_linear", over(voxels), 256, 0, sight, from, moved, at);
    }
    let coefficients = gpu::scratch::<f32>(region.len);
    gpu::copy(from, coefficients.at(), 4 * region.len)?;
    prefilter(coefficients.at(), view.size)?;
    launch!("view_taps", over(voxels), 256, 0, sight, coefficients.at(), moved, at)
}
