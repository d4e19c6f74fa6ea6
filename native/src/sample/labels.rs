//! Views of label maps: in each voxel the class of which linear interpolation, one class after the other, gives most.

use super::{Affine, affine_of, check, crop};
use rayon::prelude::*;

exports! {
    /// A view [pz][py][px] of `labels` [vz][vy][vx], for images as by `vx_sample_view_wait` of order 1: the class with the
    /// largest linear weight, of equals the lowest; what lies outside counts as class 0.
    fn vx_sample_labels_wait(
        labels: slice[u8], vz: u32, vy: u32, vx: u32, affine: slice[f64], pz: u32, py: u32, px: u32, out: slice_mut[u8]
    ) {
        let affine = affine_of(affine)?;
        let (shape, patch) = ([vz, vy, vx].map(|n| n as usize), [pz, py, px].map(|n| n as usize));
        check("labels", labels.len(), shape)?;
        check("labels of a view", out.len(), patch)?;
        let whole = crop(&affine).is_some();
        out.par_chunks_mut(patch[2]).enumerate().with_min_len(8).for_each(|(i, row)| {
            let (z, y) = (i / patch[1], i % patch[1]);
            for (x, class) in row.iter_mut().enumerate() {
                let at = centre(&affine, [z, y, x]);
                *class = if whole { label(labels, shape, at.map(|v| v.round() as i64)) } else { share(labels, shape, at) };
            }
        });
        Ok(0.0)
    }
}

/// Coordinates of a voxel of the view, counted from the centre of the volume's first voxel.
#[inline(always)]
fn centre(affine: &Affine, voxel: [usize; 3]) -> [f64; 3] {
    affine.map(|a| (0..3).map(|c| a[c] * (voxel[c] as f64 + 0.5)).sum::<f64>() + a[3] - 0.5)
}

/// 0 outside.
#[inline(always)]
fn label(labels: &[u8], shape: [usize; 3], at: [i64; 3]) -> u8 {
    let inside = (0..3).all(|a| (at[a] as usize) < shape[a]);
    if inside { labels[(at[0] as usize * shape[1] + at[1] as usize) * shape[2] + at[2] as usize] } else { 0 }
}

/// The class that has the largest share of a point.
#[inline(always)]
fn share(labels: &[u8], shape: [usize; 3], at: [f64; 3]) -> u8 {
    let low = at.map(|v| v as i64 - (v < v as i64 as f64) as i64); // floor, without the call that old processors need
    let part: [f64; 3] = std::array::from_fn(|a| at[a] - low[a] as f64);
    let upper = |corner: usize, a: usize| (corner >> a & 1) as i64;
    let classes: [u8; 8] =
        std::array::from_fn(|corner| label(labels, shape, std::array::from_fn(|a| low[a] + upper(corner, a))));
    if classes == [classes[0]; 8] {
        return classes[0];
    }
    let weight = |corner| (0..3).map(|a| if upper(corner, a) == 1 { part[a] } else { 1.0 - part[a] }).product::<f64>();
    let sum = |class: u8| (0..8).filter(|&corner| classes[corner] == class).map(weight).sum::<f64>();
    classes.into_iter().max_by(|&a, &b| sum(a).total_cmp(&sum(b)).then(b.cmp(&a))).unwrap_or(0)
}
