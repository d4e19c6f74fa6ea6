//! Elastic deformation: uniform noise per axis, smoothed by a Gaussian, times a strength (Simard et al. 2003; the
//! constants of AMAES are in `lib/data/amaes.ts`). The field is smooth over 20 voxels and more, so it is computed at every
//! fourth voxel and read linearly in between: within 1 % of the whole computation.

use super::intensity::uniform;
use crate::ops::rows;
use rayon::prelude::*;

const STEP: usize = 4;
/// Values that are summed together, so that they stay in the first cache.
const PART: usize = 2048;

/// Displacements (z, y, x) in voxels at every fourth voxel of a patch.
pub struct Bend {
    nodes: [usize; 3],
    fields: [Vec<f32>; 3],
}

/// Smooths axis 1 of `[outer][n][inner]` and keeps every fourth place; 0 outside.
fn smooth(values: &[f32], n: usize, inner: usize, bell: &[f32]) -> Vec<f32> {
    let (radius, kept) = (bell.len() / 2, kept(n));
    let mut out = vec![0f32; values.len() / n * kept];
    out.par_chunks_mut(inner).enumerate().for_each(|(row, out)| {
        let (outer, at) = (row / kept, row % kept * STEP);
        for (part, out) in out.chunks_mut(PART).enumerate() {
            rows::vectorised(|| {
                for i in at.saturating_sub(radius)..(at + radius + 1).min(n) {
                    let (w, from) = (bell[i + radius - at], &values[(outer * n + i) * inner + part * PART..]);
                    out.iter_mut().zip(from).for_each(|(o, v)| *o += w * v);
                }
            });
        }
    });
    out
}

/// The same for the last axis: every value goes to all places at once.
fn smooth_last(values: &[f32], n: usize, bell: &[f32]) -> Vec<f32> {
    let (radius, kept) = (bell.len() / 2, kept(n));
    let weight = |i: usize, place: usize| (i + radius).checked_sub(place * STEP).and_then(|k| bell.get(k));
    let weights: Vec<f32> = (0..n * kept).map(|k| weight(k / kept, k % kept).copied().unwrap_or(0.0)).collect();
    let mut out = vec![0f32; values.len() / n * kept];
    out.par_chunks_mut(kept).zip(values.par_chunks(n)).with_min_len(16).for_each(|(out, line)| {
        rows::vectorised(|| {
            for (v, weights) in line.iter().zip(weights.chunks_exact(kept)) {
                out.iter_mut().zip(weights).for_each(|(o, w)| *o += w * v);
            }
        });
    });
    out
}

/// Places 0, 4, 8 ... of an axis, so many that the last voxel lies between two.
pub fn kept(n: usize) -> usize {
    (n - 1).div_ceil(STEP) + 1
}

/// Weights of a Gaussian, cut at 4 sigma.
pub fn bell(sigma: f64) -> Vec<f32> {
    let radius = (4.0 * sigma + 0.5) as i64;
    let bell: Vec<f64> = (-radius..=radius).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp()).collect();
    let total: f64 = bell.iter().sum();
    bell.iter().map(|w| (w / total) as f32).collect()
}

impl Bend {
    /// Noise U(-1, 1) of `seed` at every voxel of `patch`, a Gaussian of `sigma` voxels cut at 4 sigma, times `alpha`.
    pub fn new(patch: [usize; 3], sigma: f64, alpha: f64, seed: u32) -> Self {
        let bell = bell(sigma);
        let (voxels, nodes) = (patch.iter().product::<usize>(), patch.map(kept));
        let fields = std::array::from_fn(|d| {
            let first = (d * voxels) as u64;
            let mut noise = vec![0f32; voxels];
            rows::each(&mut noise, |at, part| {
                for (i, v) in part.iter_mut().enumerate() {
                    *v = 2.0 * uniform(seed, first + (at + i) as u64) - 1.0;
                }
            });
            let field = smooth(&noise, patch[0], patch[1] * patch[2], &bell);
            let field = smooth(&field, patch[1], patch[2], &bell);
            let mut field = smooth_last(&field, patch[2], &bell);
            field.iter_mut().for_each(|v| *v *= alpha as f32);
            field
        });
        Self { nodes, fields }
    }

    /// Largest displacement along any axis.
    pub fn reach(&self) -> f64 {
        self.fields.iter().flatten().fold(0.0, |m, v| v.abs().max(m)) as f64
    }

    /// Displacements of the row (z, y) at every fourth x.
    pub fn row(&self, z: usize, y: usize) -> [Vec<f32>; 3] {
        let [_, ny, nx] = self.nodes;
        let [tz, ty] = [z, y].map(|v| (v % STEP) as f32 / STEP as f32);
        let corners =
            [(0, 0, (1.0 - tz) * (1.0 - ty)), (0, 1, (1.0 - tz) * ty), (1, 0, tz * (1.0 - ty)), (1, 1, tz * ty)];
        self.fields.each_ref().map(|field| {
            let mut out = vec![0f32; nx];
            for (dz, dy, w) in corners.into_iter().filter(|c| c.2 > 0.0) {
                let line = &field[((z / STEP + dz) * ny + y / STEP + dy) * nx..][..nx];
                out.iter_mut().zip(line).for_each(|(o, v)| *o += w * v);
            }
            out
        })
    }
}

/// Displacement at x from those at every fourth x.
pub fn between(nodes: &[f32], x: usize) -> f32 {
    let (at, t) = (x / STEP, (x % STEP) as f32 / STEP as f32);
    if t == 0.0 { nodes[at] } else { nodes[at] * (1.0 - t) + nodes[at + 1] * t }
}
