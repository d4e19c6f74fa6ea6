//! Views of a volume: affine sampling with the meaning of scipy.ndimage.affine_transform (mode "constant", 0 outside),
//! and the intensity changes of augmentation. Plain buffers, apart from the tensor queue.

use crate::abi::Result;
use rayon::prelude::*;

mod elastic;
pub mod intensity;
mod kspace;
mod spline;

use elastic::Bend;

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
        let affine = <&[f64; 12]>::try_from(affine).map_err(|_| "sample: the affine needs 12 numbers".to_string())?;
        let affine: Affine = std::array::from_fn(|r| std::array::from_fn(|c| affine[r * 4 + c]));
        let (shape, patch) = ([vz, vy, vx].map(|n| n as usize), [pz, py, px].map(|n| n as usize));
        check("sample", volume.len(), shape)?;
        check("sample", out.len(), patch)?;
        if affine.iter().flatten().any(|v| !v.is_finite()) {
            return Err("sample: the affine holds a number that is not finite".into());
        }
        if alpha > 0.0 && !(sigma > 0.0 && sigma <= 1e3 && alpha <= 1e6) {
            return Err(format!("sample: elastic sigma {sigma} and alpha {alpha}; they must be positive"));
        }
        let bend = (alpha > 0.0).then(|| Bend::new(patch, sigma, alpha, seed));
        let fill = if least { intensity::least(volume) } else { 0.0 };
        match (crop(&affine).filter(|_| bend.is_none()), order) {
            (Some((sign, start)), 1 | 3) => copy(volume, shape, sign, start, fill, patch, out),
            (None, 1) => taps::<2>(volume, shape, [0; 3], shape, &affine, bend.as_ref(), patch, Some(fill), out),
            (None, 3) => {
                let (low, size) = needed(&affine, bend.as_ref().map_or(0.0, Bend::reach), shape, patch);
                let mut region = cut(volume, shape, low, size);
                spline::prefilter(&mut region, size);
                taps::<4>(&region, size, low, shape, &affine, bend.as_ref(), patch, Some(fill), out);
            }
            _ => return Err(format!("sample: order is {order}; it must be 1 or 3")),
        }
        Ok(0.0)
    }
}

/// An error unless `len` values fill `shape`, which has no empty axis.
pub(crate) fn check(what: &str, len: usize, shape: [usize; 3]) -> Result<()> {
    let need = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    if need == Some(len) && len > 0 {
        return Ok(());
    }
    Err(format!("{what}: {len} values for a shape of {} x {} x {}", shape[0], shape[1], shape[2]))
}

/// Sign per axis and offset, when the map is made of flips and whole-voxel shifts.
fn crop(affine: &Affine) -> Option<([i64; 3], [i64; 3])> {
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
fn copy(
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
    let columns: Vec<Option<usize>> = (0..patch[2]).map(|i| at(2, i)).collect();
    out.par_chunks_mut(patch[1] * patch[2]).enumerate().for_each(|(z, plane)| {
        for (y, row) in plane.chunks_mut(patch[2]).enumerate() {
            match (at(0, z), at(1, y)) {
                (Some(sz), Some(sy)) => {
                    let base = (sz * shape[1] + sy) * shape[2];
                    for (value, column) in row.iter_mut().zip(&columns) {
                        *value = column.map_or(fill, |c| volume[base + c]);
                    }
                }
                _ => row.fill(fill),
            }
        }
    });
}

/// The part of the volume that the cubic spline of a view depends on, when its points move by up to `reach` voxels per
/// axis before: the prefilter forgets by 0.27 per voxel.
fn needed(affine: &Affine, reach: f64, shape: [usize; 3], patch: [usize; 3]) -> ([usize; 3], [usize; 3]) {
    const MARGIN: f64 = 18.0;
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

/// A copy of the voxels `low`..`low + size`.
fn cut(volume: &[f32], shape: [usize; 3], low: [usize; 3], size: [usize; 3]) -> Vec<f32> {
    let mut region = vec![0.0; size.iter().product()];
    region.par_chunks_mut(size[1] * size[2]).enumerate().for_each(|(z, plane)| {
        for (y, row) in plane.chunks_mut(size[2]).enumerate() {
            let at = ((low[0] + z) * shape[1] + low[1] + y) * shape[2] + low[2];
            row.copy_from_slice(&volume[at..at + size[2]]);
        }
    });
    region
}

/// Interpolates `out` from coefficients that cover `low`..`low + size` of a volume of `shape`: T = 2 linear taps or T = 4
/// cubic ones per axis, of points that `bend` moves first. Outside is `fill`, or without it the nearest face.
#[allow(clippy::too_many_arguments)]
pub(crate) fn taps<const T: usize>(
    coefficients: &[f32],
    size: [usize; 3],
    low: [usize; 3],
    shape: [usize; 3],
    affine: &Affine,
    bend: Option<&Bend>,
    patch: [usize; 3],
    fill: Option<f32>,
    out: &mut [f32],
) {
    let of = Field { coefficients, size, low, shape, affine, bend, fill };
    out.par_chunks_mut(patch[2]).enumerate().with_min_len(8).for_each(|(i, row)| {
        let (z, y) = (i / patch[1], i % patch[1]);
        match T {
            2 => linear_row(&of, z, y, row),
            _ => cubic_row(&of, z, y, row),
        }
    });
}

/// What a row of the output is interpolated from.
struct Field<'a> {
    coefficients: &'a [f32],
    size: [usize; 3],
    low: [usize; 3],
    shape: [usize; 3],
    affine: &'a Affine,
    bend: Option<&'a Bend>,
    fill: Option<f32>,
}

spline::for_best_vectors!(fn linear_row(of: &Field, z: usize, y: usize, row: &mut [f32]) -> () = row_body::<2>);
spline::for_best_vectors!(fn cubic_row(of: &Field, z: usize, y: usize, row: &mut [f32]) -> () = row_body::<4>);

#[inline(always)]
fn row_body<const T: usize>(of: &Field, z: usize, y: usize, row: &mut [f32]) {
    let last = of.shape.map(|n| (n - 1) as f64);
    let before = T as i64 / 2 - 1;
    let stride = [of.size[1] * of.size[2], of.size[2], 1];
    'voxel: for (x, value) in row.iter_mut().enumerate() {
        let mut p = [z, y, x].map(|i| i as f64 + 0.5);
        if let Some(bend) = of.bend {
            p.iter_mut().zip(bend.at([z, y, x])).for_each(|(p, d)| *p += d);
        }
        let mut first = [0i64; 3];
        let mut weights = [[0f32; T]; 3];
        let mut inside = true;
        for d in 0..3 {
            let a = &of.affine[d];
            let mut c = a[0] * p[0] + a[1] * p[1] + a[2] * p[2] + a[3] - 0.5;
            if !(0.0..=last[d]).contains(&c) {
                if let Some(fill) = of.fill {
                    *value = fill;
                    continue 'voxel;
                }
                c = c.clamp(0.0, last[d]);
            }
            let floor = c as i64; // c is not negative
            weights[d] = spline::weights::<T>((c - floor as f64) as f32);
            first[d] = floor - before;
            let from = first[d] - of.low[d] as i64;
            inside &= first[d] >= 0 && from >= 0 && from + T as i64 <= of.size[d] as i64;
        }
        *value = if inside {
            let at: usize = (0..3).map(|d| (first[d] as usize - of.low[d]) * stride[d]).sum();
            unsafe { inner::<T>(of.coefficients.as_ptr().add(at), stride, &weights) }
        } else {
            border::<T>(of, first, &weights)
        };
    }
}

/// The sum over T^3 coefficients from `at` on.
///
/// # Safety
/// They must lie in the volume.
#[inline(always)]
unsafe fn inner<const T: usize>(at: *const f32, stride: [usize; 3], [wz, wy, wx]: &[[f32; T]; 3]) -> f32 {
    let mut total = [0f32; T];
    for (iz, w) in wz.iter().enumerate() {
        let mut sums = [0f32; T];
        for (iy, w) in wy.iter().enumerate() {
            let line = unsafe { &*(at.add(iz * stride[0] + iy * stride[1]) as *const [f32; T]) };
            for k in 0..T {
                sums[k] += w * line[k];
            }
        }
        for k in 0..T {
            total[k] += w * sums[k];
        }
    }
    total.iter().zip(wx).map(|(s, w)| s * w).sum()
}

/// The same near a face: indices are mirrored there.
#[inline(never)]
fn border<const T: usize>(of: &Field, first: [i64; 3], [wz, wy, wx]: &[[f32; T]; 3]) -> f32 {
    let [oz, oy, ox]: [[usize; T]; 3] = std::array::from_fn(|d| {
        std::array::from_fn(|k| mirror(first[d] + k as i64, of.shape[d]).saturating_sub(of.low[d]).min(of.size[d] - 1))
    });
    let mut total = 0f32;
    for (iz, wz) in oz.iter().zip(wz) {
        for (iy, wy) in oy.iter().zip(wy) {
            let line = &of.coefficients[(iz * of.size[1] + iy) * of.size[2]..][..of.size[2]];
            total += wz * wy * ox.iter().zip(wx).map(|(&i, w)| w * line[i]).sum::<f32>();
        }
    }
    total
}

/// Index `i` of an axis of `n` voxels, mirrored about the centres of the outermost ones.
fn mirror(i: i64, n: usize) -> usize {
    let n = n as i64;
    if n == 1 {
        return 0;
    }
    let j = i.rem_euclid(2 * n - 2);
    j.min(2 * n - 2 - j) as usize
}
