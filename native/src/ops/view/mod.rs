//! Views of volumes as tensors: cut out or interpolated, then changed in intensity; on the card where one is in use.
//!
//! Contract. A region holds the voxels `low .. low + size` of a volume of `shape`: all that the view of `affine` (edge
//! coordinates of the view -> those of the volume) reads. Image `slot` of `out`, `[n][z][y][x]`, becomes what
//! `vx_sample_view_wait` makes of the volume, and is changed as by `vx_intensity_wait`. The same numbers are drawn; results
//! differ by rounding.

pub mod launch;

use crate::abi::Result;
use crate::sample::{self, Affine, Channel, intensity};
use crate::tensor::{self, Tensor};
use crate::volume::statistics::extremes;
use crate::{gpu, queue};

/// A region, and the view of it.
pub struct View {
    pub size: [usize; 3],
    pub low: [usize; 3],
    pub shape: [usize; 3],
    pub patch: [usize; 3],
    pub affine: Affine,
    /// Beyond the outermost voxel centres.
    pub fill: f32,
    /// Linear instead of by cubic B-splines.
    pub linear: bool,
    pub elastic: Option<Elastic>,
}

/// A smooth random deformation that comes first.
pub struct Elastic {
    pub sigma: f64,
    pub alpha: f64,
    pub seed: u32,
}

impl Elastic {
    /// Of 3 numbers, or of none.
    fn new(numbers: &[f64]) -> Result<Option<Elastic>> {
        match *numbers {
            [] => Ok(None),
            [sigma, alpha, seed] if sigma > 0.0 && sigma <= 1e3 && alpha > 0.0 && alpha <= 1e6 => {
                Ok(Some(Elastic { sigma, alpha, seed: seed as u32 }))
            }
            _ => Err(format!("view: elastic sigma, alpha and seed are {numbers:?}")),
        }
    }
    /// More than any point moves: eight standard deviations of the field.
    fn reach(&self) -> f64 {
        8.0 * self.alpha / 3f64.sqrt() * (2.0 * std::f64::consts::PI.sqrt() * self.sigma).powf(-1.5)
    }
}

/// A change of intensities, as `vx_intensity_wait` has it.
pub struct Change {
    pub kind: u32,
    pub parameters: Vec<f32>,
    pub seed: u32,
}

/// Numbers of one change at the boundary: kind, three parameters (NaN: none), seed.
const CHANGE: usize = 5;

fn changes_of(numbers: &[f64]) -> Result<Vec<Change>> {
    let (changes, rest) = numbers.as_chunks::<CHANGE>();
    let list = changes.iter().map(|&[kind, a, b, c, seed]| {
        let parameters: Vec<f32> = [a, b, c].into_iter().filter(|v| !v.is_nan()).map(|v| v as f32).collect();
        Change { kind: kind as u32, parameters, seed: seed as u32 }
    });
    let list: Vec<Change> = list.collect();
    let good = |c: &Change| !c.parameters.is_empty() && c.parameters.iter().all(|v| v.is_finite() && *v >= 0.0);
    if rest.is_empty() && list.iter().all(good) {
        return Ok(list);
    }
    Err("view: a change is a kind, one to three parameters from 0 on (else NaN), and a seed".into())
}

impl View {
    /// `bounds`: size, low, shape and patch, z, y, x each.
    fn new(bounds: &[u32], affine: &[f64], fill: f32, linear: bool, elastic: &[f64]) -> Result<View> {
        let (axes, rest) = bounds.as_chunks::<3>();
        let Ok(&[size, low, shape, patch]) = <&[[u32; 3]; 4]>::try_from(axes) else {
            return Err("view: 12 bounds are needed".into());
        };
        let [size, low, shape, patch] = [size, low, shape, patch].map(|v| v.map(|n| n as usize));
        let inside = (0..3).all(|d| size[d] > 0 && low[d] + size[d] <= shape[d] && patch[d] > 0);
        if !rest.is_empty() || !inside {
            return Err(format!("view: a region of {size:?} at {low:?} does not lie in a volume of {shape:?}"));
        }
        let (affine, elastic) = (sample::affine_of(affine)?, Elastic::new(elastic)?);
        Ok(View { size, low, shape, patch, affine, fill, linear, elastic })
    }
    /// The view from its region, on the host.
    fn sample(&self, region: &[f32], out: &mut [f32]) {
        match sample::crop(&self.affine).filter(|_| self.elastic.is_none()) {
            Some((sign, start)) => {
                let start = std::array::from_fn(|d| start[d] - self.low[d] as i64);
                sample::copy(region, self.size, sign, start, self.fill, self.patch, out);
            }
            None => sample::interpolate_region(self, region, out),
        }
    }
}

/// Image `slot` of `out` and the values of one.
fn image(out: u32, slot: u32, shape: [usize; 3]) -> Result<(Tensor, usize, usize)> {
    let (slot, size) = (slot as usize, shape.iter().product::<usize>());
    let out = tensor::get(out, tensor::any(out)?.len, "views")?;
    if size == 0 || !out.len.is_multiple_of(size) || slot >= out.len / size {
        return Err(format!("view: image {slot} of {shape:?} lies beyond {} values", out.len));
    }
    Ok((out, slot, size))
}

exports! {
    /// A new tensor with the part of a channel of `volume` [vz][vy][vx][channels] that a view of [pz][py][px] reads (elastic:
    /// sigma, alpha and seed, or none); writes its size and where it begins (z, y, x each) into `bounds`, the least value of
    /// the volume into `least`.
    fn vx_view_region_wait(
        volume: slice[f32], vz: u32, vy: u32, vx: u32, channel: u32, channels: u32, affine: slice[f64],
        elastic: slice[f64], pz: u32, py: u32, px: u32, bounds: slice_mut[u32], least: slice_mut[f32]
    ) {
        let (shape, patch) = ([vz, vy, vx].map(|n| n as usize), [pz, py, px].map(|n| n as usize));
        let channel = Channel { index: channel as usize, of: channels as usize };
        if channel.index >= channel.of || !volume.len().is_multiple_of(channel.of) {
            return Err(format!("view: channel {} of {} of {} values", channel.index, channel.of, volume.len()));
        }
        sample::check("view", volume.len() / channel.of, shape)?;
        let elastic = Elastic::new(elastic)?;
        let (low, size) = sample::reads(&sample::affine_of(affine)?, elastic.map(|e| e.reach()), shape, patch);
        for (to, from) in bounds.iter_mut().zip(size.iter().chain(&low)) {
            *to = *from as u32;
        }
        if let [least] = least {
            *least = extremes(volume).0;
        }
        let (region, handle) = tensor::make(size.iter().product());
        sample::cut(volume, channel, shape, low, size, region.values_mut());
        Ok(handle)
    }
    /// Writes a view into image `slot` of `out` (enqueued). bounds: size and low of the region, shape of the volume, patch.
    fn vx_view(
        out: u32, slot: u32, region: u32, bounds: slice[u32], affine: slice[f64], fill: f32, linear: bool,
        elastic: slice[f64]
    ) {
        let view = View::new(bounds, affine, fill, linear, elastic)?;
        let region = tensor::get(region, view.size.iter().product(), "region of a view")?;
        let (out, slot, size) = image(out, slot, view.patch)?;
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&view, &region, &out, slot);
            }
            view.sample(region.values(), &mut out.values_mut()[slot * size..][..size]);
            Ok(())
        });
        Ok(0.0)
    }
    /// Changes the intensities of image `slot` of `out`, [z][y][x] (enqueued). changes: kind, three parameters (NaN: none) and
    /// seed of each; reversal: as of values in [0, 1], each within the range that it finds.
    fn vx_view_change(out: u32, slot: u32, z: u32, y: u32, x: u32, changes: slice[f64], reversal: bool) {
        let (shape, changes) = ([z, y, x].map(|n| n as usize), changes_of(changes)?);
        let (out, slot, size) = image(out, slot, shape)?;
        queue::enqueue(move || {
            if gpu::active() {
                return launch::changed(shape, &changes, reversal, &out, slot);
            }
            let image = &mut out.values_mut()[slot * size..][..size];
            intensity::apply_all(image, shape, &changes, reversal)
        });
        Ok(0.0)
    }
}
