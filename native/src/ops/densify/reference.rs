//! The loop nest that judges the fast path: block by block, voxel by voxel.

use crate::grid::Grid;

/// Whole volumes from blocks of `c` channels, the token elsewhere.
pub fn densify(grid: &Grid, side: [usize; 3], c: usize, x: &[f32], token: &[f32]) -> Vec<f32> {
    let size: [usize; 3] = std::array::from_fn(|d| grid.dims[d] * side[d]);
    let voxels = size[0] * size[1] * size[2];
    let mut out: Vec<f32> = (0..grid.samples * voxels * c).map(|i| token[i % c]).collect();
    let inside: usize = side.iter().product();
    for (b, block) in grid.blocks.iter().enumerate() {
        for v in 0..inside {
            let at = [v / (side[1] * side[2]), v / side[2] % side[1], v % side[2]];
            let p: [usize; 3] = std::array::from_fn(|d| block[d + 1] as usize * side[d] + at[d]);
            let voxel = block[0] as usize * voxels + (p[0] * size[1] + p[1]) * size[2] + p[2];
            for i in 0..c {
                out[voxel * c + i] = x[(b * inside + v) * c + i];
            }
        }
    }
    out
}
