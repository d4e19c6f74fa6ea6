//! Volume preparation: NIfTI bytes -> decoded file -> RAS, cropped, normalised, resampled volume.
//!
//! Nothing here touches the tensor queue: an export works on the thread that calls it (and rayon's).

pub mod decode;
pub mod orient;
pub mod recipe;
pub mod resample;
pub mod statistics;

use crate::abi::Result;
use crate::tensor::Slots;
use decode::Decoded;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rayon::prelude::*;
use recipe::{Prepared, Recipe};
use std::sync::{Arc, Mutex};

/// 3x4 matrix, voxel (x, y, z) centre -> RAS mm.
pub type Affine = [[f64; 4]; 3];

/// Voxels [z, y, x] with their place in the world.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    pub shape: [usize; 3],
    pub data: Vec<f32>,
    pub affine: Affine,
}

impl Volume {
    /// mm along z, y, x: the norms of the affine's columns, rounded to 1e-6 mm so that float32 dust in a header
    /// decides neither a tie in rounding nor which axis is the thickest.
    pub fn spacing(&self) -> [f64; 3] {
        orient::norms(&self.affine).map(|s| (s * 1e6).round() / 1e6)
    }
}

static FILES: Mutex<Slots<Arc<Decoded>>> = Mutex::new(Slots::new());
static VOLUMES: Mutex<Slots<Arc<Prepared>>> = Mutex::new(Slots::new());

/// f64 values of a `info` buffer of `vx_volume_prepare_wait`.
pub const INFO: usize = 35;

fn volume(handle: u32, len: usize) -> Result<Arc<Prepared>> {
    let found = VOLUMES.lock().unwrap().get(handle)?;
    let voxels = found.volume.data.len();
    if voxels != len { Err(format!("the volume has {voxels} voxels, the buffer {len}")) } else { Ok(found) }
}

fn recipe(number: u32) -> Result<Recipe> {
    match number {
        0 => Ok(Recipe::OneMmIso),
        1 => Ok(Recipe::Amaes),
        n => Err(format!("no recipe {n}")),
    }
}

exports! {
    /// Decodes a NIfTI file (plain or gzip; `image` is the .img of a pair, else empty) and returns a file handle.
    /// `channels` receives one value: how many volumes the file holds.
    fn vx_nifti_decode_wait(bytes: slice[u8], image: slice[u8], channels: slice_mut[u32]) {
        let file = decode::decode(bytes, image)?;
        channels[0] = file.header.channels as u32;
        Ok(FILES.lock().unwrap().insert(Arc::new(file)) as f64)
    }
    /// Frees a decoded file.
    fn vx_nifti_free(file: u32) { FILES.lock().unwrap().remove(file).map(|_| 0.0) }
    /// The box that a recipe (0 onemmiso, 1 amaes) crops volume `channel` of a decoded file to, in RAS order: `bounds`
    /// receives low z y x and high z y x, all 0 where there is no voxel to keep.
    fn vx_volume_bounds_wait(file: u32, channel: u32, recipe: u32, bounds: slice_mut[u32]) {
        let file = FILES.lock().unwrap().get(file)?;
        let (low, high) = recipe::found(&file, channel as usize, self::recipe(recipe)?)?.unwrap_or_default();
        if bounds.len() != 6 { return Err(format!("bounds has {} values, needs 6", bounds.len())); }
        bounds.iter_mut().zip(low.into_iter().chain(high)).for_each(|(to, n)| *to = n as u32);
        Ok(0.0)
    }
    /// Prepares volume `channel` of a decoded file by a recipe and returns a volume handle. `bounds` is the box to crop
    /// to, as of `vx_volume_bounds_wait`, or empty for the volume's own.
    /// `limit` bounds the voxels of the result. `info` receives 35 values: shape z y x; affine, 16 by rows; of the
    /// source in RAS order: shape z y x, spacing z y x, the crop box low and high z y x; mean, std, minimum and
    /// maximum of the source in the box.
    fn vx_volume_prepare_wait(file: u32, channel: u32, recipe: u32, bounds: slice[u32], limit: f64, info: slice_mut[f64]) {
        let file = FILES.lock().unwrap().get(file)?;
        let within = match *bounds {
            [] => None,
            [a, b, c, d, e, f] => Some(([a, b, c].map(|n| n as usize), [d, e, f].map(|n| n as usize))),
            _ => return Err(format!("bounds has {} values, needs 6", bounds.len())),
        };
        let prepared = recipe::prepare(&file, channel as usize, self::recipe(recipe)?, within, limit)?;
        if info.len() != INFO { return Err(format!("info has {} values, needs {INFO}", info.len())); }
        info.copy_from_slice(&prepared.info());
        Ok(VOLUMES.lock().unwrap().insert(Arc::new(prepared)) as f64)
    }
    /// Copies a volume out as float16 bits [z, y, x].
    fn vx_volume_half_wait(volume: u32, values: slice_mut[u16]) {
        let found = self::volume(volume, values.len())?;
        crate::memory::huge_pages(values);
        let data = &found.volume.data;
        let pieces = values.par_chunks_mut(1 << 14).zip(data.par_chunks(1 << 14));
        pieces.for_each(|(to, from)| to.reinterpret_cast_mut::<half::f16>().convert_from_f32_slice(from));
        Ok(0.0)
    }
    /// Copies a volume out as float32 [z, y, x].
    fn vx_volume_read_wait(volume: u32, values: slice_mut[f32]) {
        values.copy_from_slice(&self::volume(volume, values.len())?.volume.data);
        Ok(0.0)
    }
    /// Puts a volume [z][y][x] together from its float16 chunks [cz][cy][cx], which stand in row-major order and reach beyond
    /// the volume where its sides are no multiples of theirs.
    fn vx_chunks_read_wait(chunks: slice[u16], cz: u32, cy: u32, cx: u32, values: slice_mut[f32], z: u32, y: u32, x: u32) {
        let (chunk, shape) = ([cz, cy, cx].map(|n| n as usize), [z, y, x].map(|n| n as usize));
        crate::sample::check("volume", values.len(), shape)?;
        if chunk.contains(&0) {
            return Err(format!("chunks of {chunk:?} voxels"));
        }
        let grid: [usize; 3] = std::array::from_fn(|d| shape[d].div_ceil(chunk[d]));
        let voxels = chunk.iter().product::<usize>();
        if chunks.len() != grid.iter().product::<usize>() * voxels {
            return Err(format!("{} values in chunks of {chunk:?} for a volume of {shape:?}", chunks.len()));
        }
        crate::memory::huge_pages(values);
        values.par_chunks_mut(shape[1] * shape[2]).enumerate().for_each(|(z, plane)| {
            for (y, row) in plane.chunks_mut(shape[2]).enumerate() {
                for (i, part) in row.chunks_mut(chunk[2]).enumerate() {
                    let block = ((z / chunk[0]) * grid[1] + y / chunk[1]) * grid[2] + i;
                    let at = block * voxels + ((z % chunk[0]) * chunk[1] + y % chunk[1]) * chunk[2];
                    chunks[at..at + part.len()].reinterpret_cast::<half::f16>().convert_to_f32_slice(part);
                }
            }
        });
        Ok(0.0)
    }
    /// Frees a volume.
    fn vx_volume_free(volume: u32) { VOLUMES.lock().unwrap().remove(volume).map(|_| 0.0) }
    /// Number of decoded files and volumes alive.
    fn vx_live_volumes() { Ok((FILES.lock().unwrap().live() + VOLUMES.lock().unwrap().live()) as f64) }
}
