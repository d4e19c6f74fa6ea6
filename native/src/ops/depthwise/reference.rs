//! The loop nest that judges the fast path: f64 sums over every pair of voxels that a tap joins.

use super::Shape;
use crate::grid::Grid;

/// Calls `f(fine index, coarse index, tap)` for every pair of listed voxels, indices of rows.
fn pairs(s: &Shape, grid: &Grid, mut f: impl FnMut(usize, usize, usize)) {
    let (fine, coarse) = (s.side, s.coarse());
    let row =
        |side: [usize; 3], block: usize, p: [usize; 3]| ((block * side[0] + p[0]) * side[1] + p[1]) * side[2] + p[2];
    for block in 0..grid.blocks.len() {
        for v in 0..coarse.iter().product() {
            let o = [v / (coarse[1] * coarse[2]), v / coarse[2] % coarse[1], v % coarse[2]];
            for t in 0..27 {
                let tap = [t / 9, t / 3 % 3, t % 3];
                let p: [i64; 3] = std::array::from_fn(|d| (s.stride * o[d] + tap[d]) as i64 - 1);
                let n = (0..3).fold(0, |n, d| n * 3 + (p[d].div_euclid(fine[d] as i64) + 1) as usize);
                let target = grid.neighbours[block][n];
                if target >= 0 {
                    let inside = std::array::from_fn(|d| p[d].rem_euclid(fine[d] as i64) as usize);
                    f(row(fine, target as usize, inside), row(coarse, block, o), t);
                }
            }
        }
    }
}

/// y of `vx_depthwise`.
pub fn apply(s: &Shape, grid: &Grid, up: bool, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let mut sums: Vec<f64> = (0..y.len()).map(|i| bias.map_or(0.0, |b| b[i % s.c] as f64)).collect();
    pairs(s, grid, |fine, coarse, t| {
        let (from, to) = if up { (coarse, fine) } else { (fine, coarse) };
        for c in 0..s.c {
            sums[to * s.c + c] += x[from * s.c + c] as f64 * w[c * 27 + t] as f64;
        }
    });
    y.iter_mut().zip(sums).for_each(|(y, v)| *y = v as f32);
}

/// dw of `vx_depthwise_grad_weight`.
pub fn grad_weight(s: &Shape, grid: &Grid, fine: &[f32], coarse: &[f32], dw: &mut [f32]) {
    let mut sums = vec![0f64; dw.len()];
    pairs(s, grid, |f, o, t| {
        for c in 0..s.c {
            sums[c * 27 + t] += fine[f * s.c + c] as f64 * coarse[o * s.c + c] as f64;
        }
    });
    dw.iter_mut().zip(sums).for_each(|(d, v)| *d = v as f32);
}
