//! The loop nest that judges the fast paths: f64 sums, one output at a time.

use super::Shape;
use crate::grid::Grid;

/// Value of `x` (block side `side`, `c` channels) at voxel `p` of `block`, which may lie one block outside.
fn read(x: &[f32], grid: &Grid, side: [usize; 3], c: usize, block: usize, p: [i64; 3], channel: usize) -> f64 {
    let mut neighbour = 0;
    let mut voxel = 0;
    for d in 0..3 {
        let s = side[d] as i64;
        neighbour = neighbour * 3 + (p[d].div_euclid(s) + 1) as usize;
        voxel = voxel * side[d] + p[d].rem_euclid(s) as usize;
    }
    match grid.neighbours[block][neighbour] {
        -1 => 0.0,
        b => x[(b as usize * side.iter().product::<usize>() + voxel) * c + channel] as f64,
    }
}

fn each_voxel(side: [usize; 3], mut f: impl FnMut(usize, [i64; 3])) {
    for v in 0..side.iter().product() {
        f(v, [(v / (side[1] * side[2])) as i64, (v / side[2] % side[1]) as i64, (v % side[2]) as i64]);
    }
}

/// Input voxel that tap `t` of output voxel `o` reads.
fn source(s: &Shape, o: [i64; 3], t: usize) -> [i64; 3] {
    let (k, pad) = (s.kernel, (s.kernel / 2) as i64);
    let tap = [t / (k * k), t / k % k, t % k];
    std::array::from_fn(|d| o[d] * s.stride as i64 + tap[d] as i64 - pad)
}

fn in_side(s: &Shape) -> [usize; 3] {
    s.side.map(|v| v * s.stride)
}

/// y of `vx_conv3d`.
pub fn forward(s: &Shape, grid: &Grid, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    for block in 0..grid.blocks.len() {
        each_voxel(s.side, |v, o| {
            for co in 0..s.c_out {
                let mut sum = bias.map_or(0.0, |b| b[co] as f64);
                for t in 0..s.taps() {
                    for ci in 0..s.c_in {
                        sum += read(x, grid, in_side(s), s.c_in, block, source(s, o, t), ci)
                            * w[(co * s.c_in + ci) * s.taps() + t] as f64;
                    }
                }
                y[(block * s.out_voxels() + v) * s.c_out + co] = sum as f32;
            }
        });
    }
}

/// dw of `vx_conv3d_grad_weight`.
pub fn grad_weight(s: &Shape, grid: &Grid, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let mut sums = vec![0f64; dw.len()];
    for block in 0..grid.blocks.len() {
        each_voxel(s.side, |v, o| {
            for t in 0..s.taps() {
                for ci in 0..s.c_in {
                    let a = read(x, grid, in_side(s), s.c_in, block, source(s, o, t), ci);
                    for co in 0..s.c_out {
                        sums[(co * s.c_in + ci) * s.taps() + t] +=
                            a * dy[(block * s.out_voxels() + v) * s.c_out + co] as f64;
                    }
                }
            }
        });
    }
    dw.iter_mut().zip(sums).for_each(|(d, v)| *d = v as f32);
}

/// dx of `vx_conv3d_grad_input`: the forward nest read backwards.
pub fn grad_input(s: &Shape, grid: &Grid, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let side = in_side(s);
    let mut sums = vec![0f64; dx.len()];
    for block in 0..grid.blocks.len() {
        each_voxel(s.side, |v, o| {
            for t in 0..s.taps() {
                let p = source(s, o, t);
                let n = (0..3).fold(0, |n, d| n * 3 + (p[d].div_euclid(side[d] as i64) + 1) as usize);
                let target = grid.neighbours[block][n];
                if target < 0 {
                    continue;
                }
                let voxel = (0..3).fold(0, |q, d| q * side[d] + p[d].rem_euclid(side[d] as i64) as usize);
                for ci in 0..s.c_in {
                    let sum: f64 = (0..s.c_out)
                        .map(|co| {
                            dy[(block * s.out_voxels() + v) * s.c_out + co] as f64
                                * w[(co * s.c_in + ci) * s.taps() + t] as f64
                        })
                        .sum();
                    sums[(target as usize * s.in_voxels() + voxel) * s.c_in + ci] += sum;
                }
            }
        });
    }
    dx.iter_mut().zip(sums).for_each(|(d, v)| *d = v as f32);
}
