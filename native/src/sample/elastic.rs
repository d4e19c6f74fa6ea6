//! Elastic deformation: uniform noise per axis, smoothed by a Gaussian, times a strength (Simard et al. 2003; the
//! constants of AMAES are in `lib/data/amaes.ts`). The field is smooth over 20 voxels and more, so it is computed at every
//! fourth voxel and read linearly in between: within 1 % of the whole computation.

use super::intensity::uniform;
use rayon::prelude::*;

const STEP: usize = 4;

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
        for i in at.saturating_sub(radius)..(at + radius + 1).min(n) {
            let (w, from) = (bell[i + radius - at], &values[(outer * n + i) * inner..]);
            out.iter_mut().zip(from).for_each(|(o, v)| *o += w * v);
        }
    });
    out
}

/// Places 0, 4, 8 ... of an axis, so many that the last voxel lies between two.
fn kept(n: usize) -> usize {
    (n - 1).div_ceil(STEP) + 1
}

impl Bend {
    /// Noise U(-1, 1) of `seed` at every voxel of `patch`, a Gaussian of `sigma` voxels cut at 4 sigma, times `alpha`.
    pub fn new(patch: [usize; 3], sigma: f64, alpha: f64, seed: u32) -> Self {
        let radius = (4.0 * sigma + 0.5) as i64;
        let bell: Vec<f64> = (-radius..=radius).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp()).collect();
        let total: f64 = bell.iter().sum();
        let bell: Vec<f32> = bell.iter().map(|w| (w / total) as f32).collect();
        let (voxels, nodes) = (patch.iter().product::<usize>(), patch.map(kept));
        let fields = std::array::from_fn(|d| {
            let first = (d * voxels) as u64;
            let noise: Vec<f32> =
                (0..voxels as u64).into_par_iter().map(|i| 2.0 * uniform(seed, first + i) - 1.0).collect();
            let field = smooth(&noise, patch[0], patch[1] * patch[2], &bell);
            let field = smooth(&field, patch[1], patch[2], &bell);
            let mut field = smooth(&field, patch[2], 1, &bell);
            field.iter_mut().for_each(|v| *v *= alpha as f32);
            field
        });
        Self { nodes, fields }
    }

    /// Largest displacement along any axis.
    pub fn reach(&self) -> f64 {
        self.fields.iter().flatten().fold(0.0, |m, v| v.abs().max(m)) as f64
    }

    /// Displacement of a voxel.
    pub fn at(&self, voxel: [usize; 3]) -> [f64; 3] {
        let [_, ny, nx] = self.nodes;
        let base = voxel.map(|v| v / STEP);
        let t = voxel.map(|v| (v % STEP) as f32 / STEP as f32);
        let mut sum = [0f32; 3];
        for corner in 0..8 {
            let offset = [corner / 4, corner / 2 % 2, corner % 2];
            let w: f32 = (0..3).map(|d| if offset[d] == 1 { t[d] } else { 1.0 - t[d] }).product();
            if w > 0.0 {
                let at = ((base[0] + offset[0]) * ny + base[1] + offset[1]) * nx + base[2] + offset[2];
                sum.iter_mut().zip(&self.fields).for_each(|(s, field)| *s += w * field[at]);
            }
        }
        sum.map(f64::from)
    }
}
