//! Views of a volume: affine sampling with the meaning of scipy.ndimage.affine_transform (mode "constant", 0 outside),
//! and the intensity changes of augmentation. Plain buffers, apart from the tensor queue.

use crate::abi::Result;
use crate::memory::huge_pages;
use crate::ops::view::View;
use rayon::prelude::*;
use std::sync::Mutex;

pub mod elastic;
pub mod intensity;
mod interpolate;
pub mod kspace;
pub mod labels;
pub mod spline;

use elastic::Bend;
use interpolate::{Field, taps};

/// Rows of an affine map: edge coordinates (z, y, x) of the output -> edge coordinates of the input.
pub type Affine = [[f64; 4]; 3];

exports! {
    /// Samples a view of `volume` [vz][vy][vx] into `out` [pz][py][px]. `affine`: 3x4, edge coordinates (z, y, x) of the
    /// view -> those of the volume. order 1 (linear) or 3 (cubic B-spline, mirror prefilter); beyond the outermost voxel
    /// centres 0, or with `least` the least value of the volume. alpha above 0: an elastic deformation of noise of `seed`
    /// (U(-1, 1), Gaussian of sigma voxels, times alpha voxels) comes first. Else whole-voxel crops and flips are copied bit
    /// for bit.
    fn vx_sample_view_wait(
        volume: slice[f32], vz: u32, vy: u32, vx: u32, affine: slice[f64], order: u32, least: bool,
        sigma: f64, alpha: f64, seed: u32, pz: u32, py: u32, px: u32, out: slice_mut[f32]
    ) {
        let affine = affine_of(affine)?;
        let (shape, patch) = ([vz, vy, vx].map(|n| n as usize), [pz, py, px].map(|n| n as usize));
        check("sample", volume.len(), shape)?;
        check("sample", out.len(), patch)?;
        if alpha > 0.0 && !(sigma > 0.0 && sigma <= 1e3 && alpha <= 1e6) {
            return Err(format!("sample: elastic sigma {sigma} and alpha {alpha}; they must be positive"));
        }
        let bend = (alpha > 0.0).then(|| Bend::new(patch, sigma, alpha, seed));
        let fill = if least { crate::volume::statistics::extremes(volume).0 } else { 0.0 };
        huge_pages(out);
        let copied = crop(&affine).filter(|_| bend.is_none());
        let (affine, bend, fill) = (&affine, bend.as_ref(), Some(fill));
        match (copied, order) {
            (Some((sign, start)), 1 | 3) => copy(volume, shape, sign, start, fill.unwrap_or(0.0), patch, out),
            (None, 1) => {
                let of = Field { coefficients: volume, size: shape, low: [0; 3], shape, affine, bend, fill };
                taps::<2>(&of, patch, out);
            }
            (None, 3) => {
                let (low, size) = needed(affine, bend.map_or(0.0, Bend::reach), shape, patch);
                let mut region = std::mem::take(&mut *REGION.lock().unwrap());
                region.resize(size.iter().product(), 0.0);
                huge_pages(&mut region);
                spline::prefilter(volume, shape, low, size, &mut region);
                taps::<4>(&Field { coefficients: &region, size, low, shape, affine, bend, fill }, patch, out);
                *REGION.lock().unwrap() = region;
            }
            _ => return Err(format!("sample: order is {order}; it must be 1 or 3")),
        }
        Ok(0.0)
    }
}

/// Coefficients of the last view: fresh memory would have to be cleared by the system page by page.
static REGION: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// An error unless `len` values fill `shape`, which has no empty axis.
pub(crate) fn check(what: &str, len: usize, shape: [usize; 3]) -> Result<()> {
    let need = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    if need == Some(len) && len > 0 {
        return Ok(());
    }
    Err(format!("{what}: {len} values for a shape of {} x {} x {}", shape[0], shape[1], shape[2]))
}

/// The rows of 12 numbers.
pub fn affine_of(numbers: &[f64]) -> Result<Affine> {
    let numbers = <&[f64; 12]>::try_from(numbers).map_err(|_| "sample: the affine needs 12 numbers".to_string())?;
    if numbers.iter().any(|v| !v.is_finite()) {
        return Err("sample: the affine holds a number that is not finite".into());
    }
    Ok(std::array::from_fn(|r| std::array::from_fn(|c| numbers[r * 4 + c])))
}

/// The voxels of a volume that a view reads whose points move by up to `reach` before: where they begin, and how many.
pub fn reads(affine: &Affine, reach: Option<f64>, shape: [usize; 3], patch: [usize; 3]) -> ([usize; 3], [usize; 3]) {
    let (None, Some((sign, start))) = (reach, crop(affine)) else {
        return needed(affine, reach.unwrap_or(0.0), shape, patch);
    };
    let first = |d: usize| if sign[d] > 0 { start[d] } else { start[d] - patch[d] as i64 };
    let low = std::array::from_fn(|d| first(d).clamp(0, shape[d] as i64 - 1) as usize);
    let end = |d: usize| (first(d) + patch[d] as i64).clamp(low[d] as i64 + 1, shape[d] as i64) as usize;
    (low, std::array::from_fn(|d| end(d) - low[d]))
}

/// A channel of many, `[z][y][x][channels]`.
#[derive(Clone, Copy)]
pub struct Channel {
    pub index: usize,
    pub of: usize,
}

/// Copies the voxels `low`..`low + size` of a channel of a volume.
pub fn cut(volume: &[f32], channel: Channel, shape: [usize; 3], low: [usize; 3], size: [usize; 3], out: &mut [f32]) {
    let Channel { index, of } = channel;
    out.par_chunks_mut(size[2]).enumerate().with_min_len(64).for_each(|(row, line)| {
        let first = ((low[0] + row / size[1]) * shape[1] + low[1] + row % size[1]) * shape[2] + low[2];
        match of {
            1 => line.copy_from_slice(&volume[first..][..size[2]]),
            _ => line.iter_mut().zip(volume[first * of + index..].iter().step_by(of)).for_each(|(v, from)| *v = *from),
        }
    });
}

/// A view of its region, linear or by cubic B-splines.
pub fn interpolate_region(view: &View, region: &[f32], out: &mut [f32]) {
    let &View { size, low, shape, patch, ref affine, fill, linear, ref elastic } = view;
    let bend = elastic.as_ref().map(|of| Bend::new(patch, of.sigma, of.alpha, of.seed));
    let of = |coefficients| Field { coefficients, size, low, shape, affine, bend: bend.as_ref(), fill: Some(fill) };
    if linear {
        return taps::<2>(&of(region), patch, out);
    }
    let mut coefficients = vec![0.0; region.len()];
    spline::prefilter(region, size, [0; 3], size, &mut coefficients);
    taps::<4>(&of(&coefficients), patch, out);
}

/// Sign per axis and offset, when the map is made of flips and whole-voxel shifts.
pub fn crop(affine: &Affine) -> Option<([i64; 3], [i64; 3])> {
    let mut found = ([1i64; 3], [0i64; 3]);
    for (r, row) in affine.iter().enumerate() {
        let sizes = row[..3].iter().enumerate().map(|(c, v)| if r == c { v.abs() - 1.0 } else { *v });
        let shift = row[3].round();
        if sizes.map(f64::abs).any(|s| s > 1e-12) || (row[3] - shift).abs() > 1e-9 || shift.abs() > 1e9 {
            return None;
        }
        found.0[r] = row[r].signum() as i64;
        found.1[r] = shift as i64;
    }
    Some(found)
}

/// Copies whole voxels; `fill` outside of the volume.
#[allow(clippy::too_many_arguments)]
pub fn copy(
    volume: &[f32],
    shape: [usize; 3],
    sign: [i64; 3],
    start: [i64; 3],
    fill: f32,
    patch: [usize; 3],
    out: &mut [f32],
) {
    // A flipped voxel i covers [start - i - 1, start - i].
    let at = |d: usize, i: usize| {
        let j = if sign[d] > 0 { start[d] + i as i64 } else { start[d] - 1 - i as i64 };
        (j >= 0 && j < shape[d] as i64).then_some(j as usize)
    };
    let inside: Vec<usize> = (0..patch[2]).filter(|&x| at(2, x).is_some()).collect();
    let (first, count) = (inside.first().copied().unwrap_or(0), inside.len());
    out.par_chunks_mut(patch[2]).enumerate().with_min_len(64).for_each(|(row, values)| {
        let (Some(z), Some(y), 1..) = (at(0, row / patch[1]), at(1, row % patch[1]), count) else {
            return values.fill(fill);
        };
        let line = &volume[(z * shape[1] + y) * shape[2]..][..shape[2]];
        let (a, b) = (at(2, first).unwrap_or(0), at(2, first + count - 1).unwrap_or(0));
        let (before, rest) = values.split_at_mut(first);
        let (middle, after) = rest.split_at_mut(count);
        before.fill(fill);
        after.fill(fill);
        if sign[2] > 0 {
            middle.copy_from_slice(&line[a..=b]);
        } else {
            middle.iter_mut().zip(line[b..=a].iter().rev()).for_each(|(v, from)| *v = *from);
        }
    });
}

/// The part of the volume that the cubic spline of a view depends on, when its points move by up to `reach` voxels per
/// axis before: the prefilter forgets by 0.27 per voxel.
fn needed(affine: &Affine, reach: f64, shape: [usize; 3], patch: [usize; 3]) -> ([usize; 3], [usize; 3]) {
    const MARGIN: f64 = 12.0;
    let (mut low, mut size) = ([0; 3], [1; 3]);
    for d in 0..3 {
        let margin = MARGIN + reach * affine[d][..3].iter().map(|v| v.abs()).sum::<f64>();
        let spans = (0..3).map(|c| affine[d][c] * patch[c] as f64);
        let first = affine[d][3] + spans.clone().map(|s| s.min(0.0)).sum::<f64>() - margin;
        let last = affine[d][3] + spans.map(|s| s.max(0.0)).sum::<f64>() + margin;
        let length = shape[d] as f64;
        low[d] = first.floor().clamp(0.0, length - 1.0) as usize;
        size[d] = (last.ceil().clamp(0.0, length) as usize).saturating_sub(low[d]).max(1);
    }
    (low, size)
}
