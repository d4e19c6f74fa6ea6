//! Training crops of labelled cases: the image trilinear, its labels nearest, zeros outside, towards which
//! the image fades within a voxel of its border.

use super::check;
use crate::abi::Result;
use crate::ops::rows::vectorised;
use rayon::prelude::*;

/// Where the voxels of a crop lie in its case.
struct Place {
    patch: [usize; 3],
    /// Voxel coordinates of the crop's middle.
    middle: [f64; 3],
    /// From voxels around the middle of the crop to voxels of the case, by rows.
    matrix: [f64; 9],
}

impl Place {
    fn of(numbers: &[f64], patch: [usize; 3]) -> Result<Place> {
        let numbers = <&[f64; 12]>::try_from(numbers).map_err(|_| "crop: the place needs 12 numbers".to_string())?;
        if numbers.iter().any(|v| !v.is_finite()) {
            return Err("crop: the place holds a number that is not finite".into());
        }
        let (middle, matrix) = (std::array::from_fn(|a| numbers[a]), std::array::from_fn(|i| numbers[3 + i]));
        Ok(Place { patch, middle, matrix })
    }
    /// Coordinates of each voxel of plane `i`, in order.
    #[inline(always)]
    fn points(&self, i: usize) -> impl Iterator<Item = [f64; 3]> {
        let &Place { patch: [pz, py, px], middle, matrix: m } = self;
        let from = |at: usize, side: usize| at as f64 + 0.5 - side as f64 / 2.0;
        let u = from(i, pz);
        let at = move |v: f64, w: f64| {
            std::array::from_fn(|a| middle[a] + m[3 * a] * u + m[3 * a + 1] * v + m[3 * a + 2] * w)
        };
        (0..py).flat_map(move |j| (0..px).map(move |k| at(from(j, py), from(k, px))))
    }
}

/// Where a voxel lies in a volume.
#[inline(always)]
fn place(shape: [usize; 3], at: [i64; 3]) -> usize {
    (at[0] as usize * shape[1] + at[1] as usize) * shape[2] + at[2] as usize
}

/// The same; None outside.
#[inline(always)]
fn index(shape: [usize; 3], at: [i64; 3]) -> Option<usize> {
    (0..3).all(|a| (at[a] as usize) < shape[a]).then(|| place(shape, at))
}

/// Without the call that a processor of the baseline needs.
#[inline(always)]
fn floor(v: f64) -> i64 {
    v as i64 - (v < v as i64 as f64) as i64
}

/// `[z][y][x][c]`.
struct Image<'a> {
    values: &'a [f32],
    shape: [usize; 3],
    c: usize,
}

impl Image<'_> {
    /// The value between the eight voxels around a point.
    #[inline(always)]
    fn put(&self, at: [f64; 3], out: &mut [f32]) {
        let low = at.map(floor);
        let near: [[f64; 2]; 3] = std::array::from_fn(|a| [1.0 + low[a] as f64 - at[a], at[a] - low[a] as f64]);
        let weights = CORNERS.map(|[z, y, x]| near[0][z] * near[1][y] * near[2][x]);
        let inside = (0..3).all(|a| low[a] >= 0 && low[a] + 1 < self.shape[a] as i64);
        out.fill(0.0);
        for (upper, weight) in CORNERS.into_iter().zip(weights) {
            let at = std::array::from_fn(|a| low[a] + upper[a] as i64);
            let from = if inside { Some(place(self.shape, at)) } else { index(self.shape, at) };
            let Some(from) = from else { continue };
            for (to, value) in out.iter_mut().zip(&self.values[from * self.c..]) {
                *to = (*to as f64 + weight * *value as f64) as f32;
            }
        }
    }
}

/// The voxels around a point: 1 for the upper one of an axis.
const CORNERS: [[usize; 3]; 8] =
    [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]];

exports! {
    /// A crop `[pz][py][px][c]` of an image `[vz][vy][vx][c]`, and of its labels `[vz][vy][vx]`, if both are given. place: voxel
    /// coordinates of the crop's middle, and the 3x3 matrix from voxels around it to voxels of the case.
    fn vx_crop_wait(
        image: slice[f32], labels: slice[u8], vz: u32, vy: u32, vx: u32, channels: u32, place: slice[f64],
        pz: u32, py: u32, px: u32, out: slice_mut[f32], out_labels: slice_mut[u8]
    ) {
        let (shape, c) = ([vz, vy, vx].map(|n| n as usize), channels.max(1) as usize);
        let patch @ [_, py, px] = [pz, py, px].map(|n| n as usize);
        let place = Place::of(place, patch)?;
        check("crop", image.len() / c, shape)?;
        check("crop", out.len() / c, patch)?;
        let of = Image { values: image, shape, c };
        out.par_chunks_mut(py * px * c).enumerate().for_each(|(i, plane)| {
            vectorised(|| place.points(i).zip(plane.chunks_exact_mut(c)).for_each(|(at, out)| of.put(at, out)));
        });
        if !labels.is_empty() && !out_labels.is_empty() {
            check("crop of labels", labels.len(), shape)?;
            check("crop of labels", out_labels.len(), patch)?;
            out_labels.par_chunks_mut(py * px).enumerate().for_each(|(i, plane)| {
                let label = |at: [f64; 3]| index(shape, at.map(|v| floor(v + 0.5))).map_or(0, |from| labels[from]);
                place.points(i).zip(plane).for_each(|(at, out)| *out = label(at));
            });
        }
        Ok(0.0)
    }
}
