//! Views of volumes as tensors: cut out or interpolated, then changed in intensity; on the card where one is in use.
//!
//! Contract. A region holds the voxels `low .. low + size` of a volume of `shape`: all that the view of `affine` (edge
//! coordinates of the view -> those of the volume) reads. Image `slot` of `out`, `[n][z][y][x]`, becomes what
//! `vx_sample_view_wait` makes of the volume by cubic B-splines with `fill` outside, and then what `vx_intensity_wait` makes
//! of that for each change: kinds 0 to 7, one parameter each. The same numbers are drawn; results differ by rounding.

pub mod launch;

use crate::abi::Result;
use crate::sample::{self, Affine, intensity};
use crate::{gpu, queue, tensor};

/// A region, and the view of it.
pub struct View {
    pub size: [usize; 3],
    pub low: [usize; 3],
    pub shape: [usize; 3],
    pub patch: [usize; 3],
    pub affine: Affine,
    pub fill: f32,
}

/// A change of intensities, as `vx_intensity_wait` has it.
pub struct Change {
    pub kind: u32,
    pub a: f32,
    pub seed: u32,
}

impl View {
    /// `bounds`: size, low, shape and patch, z, y, x each.
    fn new(bounds: &[u32], affine: &[f64], fill: f32) -> Result<View> {
        let (axes, rest) = bounds.as_chunks::<3>();
        let Ok(&[size, low, shape, patch]) = <&[[u32; 3]; 4]>::try_from(axes) else {
            return Err("view: 12 bounds are needed".into());
        };
        let [size, low, shape, patch] = [size, low, shape, patch].map(|v| v.map(|n| n as usize));
        let inside = (0..3).all(|d| size[d] > 0 && low[d] + size[d] <= shape[d] && patch[d] > 0);
        if !rest.is_empty() || !inside {
            return Err(format!("view: a region of {size:?} at {low:?} does not lie in a volume of {shape:?}"));
        }
        Ok(View { size, low, shape, patch, affine: sample::affine_of(affine)?, fill })
    }
    fn voxels(&self) -> usize {
        self.patch.iter().product()
    }
    /// The view from its region, on the host.
    fn sample(&self, region: &[f32], out: &mut [f32]) {
        match sample::crop(&self.affine) {
            Some((sign, start)) => {
                let start = std::array::from_fn(|d| start[d] - self.low[d] as i64);
                sample::copy(region, self.size, sign, start, self.fill, self.patch, out);
            }
            None => sample::interpolate_region(self, region, out),
        }
    }
}

exports! {
    /// A new tensor with the part of `volume` [vz][vy][vx] that a view of [pz][py][px] reads; writes its size and where it
    /// begins (z, y, x each) into `bounds`.
    fn vx_view_region_wait(
        volume: slice[f32], vz: u32, vy: u32, vx: u32, affine: slice[f64], pz: u32, py: u32, px: u32, bounds: slice_mut[u32]
    ) {
        let (shape, patch) = ([vz, vy, vx].map(|n| n as usize), [pz, py, px].map(|n| n as usize));
        sample::check("view", volume.len(), shape)?;
        let (low, size) = sample::reads(&sample::affine_of(affine)?, shape, patch);
        for (to, from) in bounds.iter_mut().zip(size.iter().chain(&low)) {
            *to = *from as u32;
        }
        let (region, handle) = tensor::make(size.iter().product());
        sample::cut(volume, shape, low, size, region.values_mut());
        Ok(handle)
    }
    /// Writes a view into image `slot` of `out` (enqueued). bounds: size and low of the region, shape of the volume, patch;
    /// changes: kind, parameter and seed of each.
    fn vx_view(out: u32, slot: u32, region: u32, bounds: slice[u32], affine: slice[f64], fill: f32, changes: slice[f64]) {
        let view = View::new(bounds, affine, fill)?;
        let (slot, size) = (slot as usize, view.voxels());
        let region = tensor::get(region, view.size.iter().product(), "region of a view")?;
        let out = tensor::get(out, tensor::any(out)?.len, "views")?;
        if !out.len.is_multiple_of(size) || slot >= out.len / size {
            return Err(format!("view: image {slot} of {:?} lies beyond {} values", view.patch, out.len));
        }
        let (changes, rest) = changes.as_chunks::<3>();
        let changes: Vec<Change> =
            changes.iter().map(|&[kind, a, seed]| Change { kind: kind as u32, a: a as f32, seed: seed as u32 }).collect();
        if !rest.is_empty() || changes.iter().any(|c| c.kind > 7 || !c.a.is_finite() || c.a < 0.0) {
            return Err("view: changes are a kind up to 7, a parameter from 0 on, and a seed each".into());
        }
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&view, &region, &changes, &out, slot);
            }
            let image = &mut out.values_mut()[slot * size..][..size];
            view.sample(region.values(), image);
            changes.iter().try_for_each(|c| intensity::apply(image, view.patch, c.kind, &[c.a], c.seed))
        });
        Ok(0.0)
    }
}
