//! Named preparations: `onemmiso` (nnssl: S3D, MAE, OpenMind, CVA) and `amaes` (Yucca: AMAES, FOMO).

use super::decode::Decoded;
use super::orient::to_ras;
use super::resample::{Border, resize, resized, separate_axis};
use super::statistics::{extremes, moments};
use super::{INFO, Volume};
use crate::abi::Result;
use crate::ops::rows;

/// Target spacing of both recipes, mm.
const TARGET: f64 = 1.0;
/// Most voxels that are prepared at once, and most along an axis.
const MAX_VOXELS: f64 = (1u64 << 27) as f64;
const MAX_AXIS: usize = 4096;

#[derive(Clone, Copy, PartialEq)]
pub enum Recipe {
    OneMmIso,
    Amaes,
}

/// Half-open box of voxels, low and high z, y, x.
pub type Bounds = ([usize; 3], [usize; 3]);

/// A prepared volume with its history. Boxes, shapes and spacings in order z, y, x of the source turned to RAS.
pub struct Prepared {
    pub volume: Volume,
    source_shape: [usize; 3],
    source_spacing: [f64; 3],
    low: [usize; 3],
    high: [usize; 3],
    stats: [f64; 4],
}

impl Prepared {
    /// The values that `vx_volume_prepare_wait` hands out.
    pub fn info(&self) -> [f64; INFO] {
        let count = |v: [usize; 3]| v.map(|n| n as f64);
        let rows = self.volume.affine.iter().flatten().copied().chain([0.0, 0.0, 0.0, 1.0]);
        let all: Vec<f64> = (count(self.volume.shape).into_iter().chain(rows))
            .chain(count(self.source_shape))
            .chain(self.source_spacing)
            .chain(count(self.low))
            .chain(count(self.high))
            .chain(self.stats)
            .collect();
        all.try_into().expect("35 values")
    }
}

/// One volume of a file turned to RAS.
fn source(file: &Decoded, channel: usize) -> Result<Volume> {
    let size = file.header.size;
    if size.iter().map(|&n| n as f64).product::<f64>() > MAX_VOXELS {
        return Err(format!(
            "{} x {} x {} voxels are more than can be prepared at once; crop it",
            size[0], size[1], size[2]
        ));
    }
    Ok(to_ras(file.channel(channel)?, size, &file.header.affine))
}

/// The box that a recipe keeps of a volume in RAS; none where it has no voxel to keep.
fn kept(volume: &Volume, recipe: Recipe) -> Option<Bounds> {
    match recipe {
        Recipe::OneMmIso => bounds(volume, |v| v != 0.0),
        // Yucca adds 1 to an end that is already open: one slice more.
        Recipe::Amaes => {
            bounds(volume, |v| v > 0.0).map(|(low, high)| (low, [0, 1, 2].map(|i| (high[i] + 1).min(volume.shape[i]))))
        }
    }
}

/// The box that `prepare` would crop one volume of a file to.
pub fn found(file: &Decoded, channel: usize, recipe: Recipe) -> Result<Option<Bounds>> {
    Ok(kept(&source(file, channel)?, recipe))
}

/// Prepares one volume of a file: RAS, crop (to `within`, or to the box of the recipe), normalise, 1 mm. `limit` bounds
/// the voxels of the result.
pub fn prepare(file: &Decoded, channel: usize, recipe: Recipe, within: Option<Bounds>, limit: f64) -> Result<Prepared> {
    let source = source(file, channel)?;
    let (source_shape, source_spacing) = (source.shape, source.spacing());
    let (low, high) = match within.or_else(|| kept(&source, recipe)) {
        Some((low, high)) if (0..3).all(|i| low[i] < high[i] && high[i] <= source_shape[i]) => (low, high),
        Some((low, high)) => {
            return Err(format!("the box {low:?} to {high:?} does not lie in {source_shape:?} voxels"));
        }
        None if recipe == Recipe::Amaes => return Err("no voxel is above 0; there is nothing to prepare".into()),
        None => return Err("every voxel is 0; there is nothing to prepare".into()),
    };
    let mut volume = crop(source, low, high);
    let (mean, std) = moments(&volume.data);
    let (min, max) = extremes(&volume.data);
    let (min, max) = (min as f64, max as f64);
    let stats = [mean, std, min, max];
    match recipe {
        Recipe::OneMmIso => {
            let scale = 1.0 / std.max(1e-8);
            rows::each(&mut volume.data, |_, part| {
                part.iter_mut().for_each(|v| *v = ((*v as f64 - mean) * scale) as f32);
            });
        }
        Recipe::Amaes => {
            let foreground: Vec<f32> = volume.data.iter().copied().filter(|&v| v as f64 != min).collect();
            let top = if foreground.is_empty() { max } else { percentile(foreground, 0.99) };
            let range = (top - min).max(1e-8);
            rows::each(&mut volume.data, |_, part| {
                part.iter_mut().for_each(|v| *v = (((*v as f64).min(top) - min) / range) as f32);
            });
        }
    }
    Ok(Prepared { volume: to_target(volume, recipe, limit)?, source_shape, source_spacing, low, high, stats })
}

fn to_target(mut volume: Volume, recipe: Recipe, limit: f64) -> Result<Volume> {
    let (from, spacing) = (volume.shape, volume.spacing());
    if spacing.iter().any(|&s| s < 1e-3) {
        return Err(format!("the spacing of {spacing:?} mm (z, y, x) is no voxel size; correct the header"));
    }
    let to = [0, 1, 2].map(|i| resized(from[i], spacing[i], TARGET));
    let voxels = to.iter().map(|&n| n as f64).product::<f64>();
    if voxels > limit.min(MAX_VOXELS) || to.iter().any(|&n| n > MAX_AXIS) && to != from {
        return Err(format!(
            "the spacing of {spacing:?} mm (z, y, x) would turn {from:?} voxels into {to:?} at 1 mm; correct the header"
        ));
    }
    volume.data = match recipe {
        Recipe::OneMmIso => resize(volume.data, from, to, Border::Edge, separate_axis(spacing), false),
        Recipe::Amaes => resize(volume.data, from, to, Border::Mirror, None, true),
    };
    // Both grids share their outer edges: new voxel j is old (j + 0.5) n / m - 0.5.
    for row in &mut volume.affine {
        for axis in 0..3 {
            let ratio = from[2 - axis] as f64 / to[2 - axis] as f64;
            row[3] += row[axis] * (ratio - 1.0) / 2.0;
            row[axis] *= ratio;
        }
    }
    volume.shape = to;
    Ok(volume)
}

/// Half-open box [low, high) of the voxels that `keep` takes. Filling holes would not change it.
fn bounds(volume: &Volume, keep: impl Fn(f32) -> bool) -> Option<([usize; 3], [usize; 3])> {
    let [_, ny, nx] = volume.shape;
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for (i, row) in volume.data.chunks(nx).enumerate() {
        let Some(first) = row.iter().position(|&v| keep(v)) else { continue };
        let last = row.iter().rposition(|&v| keep(v)).unwrap_or(first);
        for (axis, (a, b)) in [(i / ny, i / ny), (i % ny, i % ny), (first, last)].into_iter().enumerate() {
            low[axis] = low[axis].min(a);
            high[axis] = high[axis].max(b + 1);
        }
    }
    (high[0] > 0).then_some((low, high))
}

fn crop(volume: Volume, low: [usize; 3], high: [usize; 3]) -> Volume {
    let [_, ny, nx] = volume.shape;
    let shape = [0, 1, 2].map(|i| high[i] - low[i]);
    if shape == volume.shape {
        return volume;
    }
    // In place: a row never goes behind where it was.
    let mut data = volume.data;
    let mut at = 0;
    for z in low[0]..high[0] {
        for y in low[1]..high[1] {
            let from = (z * ny + y) * nx + low[2];
            data.copy_within(from..from + shape[2], at);
            at += shape[2];
        }
    }
    data.truncate(at);
    let mut affine = volume.affine;
    for row in &mut affine {
        row[3] += (0..3).map(|axis| row[axis] * low[2 - axis] as f64).sum::<f64>();
    }
    Volume { shape, data, affine }
}

/// Quantile with linear interpolation between order statistics (NumPy's default).
fn percentile(mut values: Vec<f32>, q: f64) -> f64 {
    let at = (values.len() - 1) as f64 * q;
    let k = at.floor() as usize;
    let (_, &mut low, above) = values.select_nth_unstable_by(k, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    low as f64 + (high as f64 - low as f64) * (at - k as f64)
}
