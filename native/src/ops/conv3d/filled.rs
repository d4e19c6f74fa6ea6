//! Gradients of a 3x3x3 convolution with stride 1 over volumes that hold values in the blocks of a grid and one token
//! everywhere else (what `densify` makes). Only the blocks are computed; the rest is exact and costs a few sums.
//!
//! With X = t + z, z = x - t in the blocks and zero elsewhere, and S[tap] the sum of dy over the outputs whose tap lies in
//! the volume:
//! dw[tap] = S[tap] t^T + sum over the blocks of dy z^T; dx is wanted in the blocks only; dt = sum over taps of
//! w[tap]^T S[tap] - sum over the blocks of dx; the bias gets S[centre].
//!
//! Two cores of a Zen 5, bf16 pairs, a step of s3d with resenc-l at 96^3, a quarter of 16^3 blocks visible: data gradients of the
//! decoder's last convolution (64 to 32 channels, half of them filled) and of the four convolutions over filled volumes, with
//! what takes them apart: 82 ms, now 47; weight gradients 95, now 62. The forward pass is computed everywhere: it would save
//! about 20 ms more, for tiles of two kinds.

use super::choice::{Direction, Way, way};
use super::vector::Path;
use super::weight::add_rows;
use super::winograd::{self, Parts};
use super::{Shape, parse};
use crate::element::Element;
use crate::grid::Grid;
use crate::memory::Scratch;
use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// Largest share of visible blocks that is computed apart.
const SHARE: f64 = 0.7;

/// How to compute, where this way is possible and pays.
fn path<E: Element>(s: &Shape, grid: &Grid, direction: Direction) -> Option<Path> {
    let cells = grid.samples * grid.dims.iter().product::<usize>();
    let few = (grid.blocks.len() as f64) < SHARE * cells as f64;
    match way::<E>(s, grid, direction) {
        Way::Winograd(path) if few => Some(path),
        _ => None,
    }
}

fn volumes_len(s: &Shape, grid: &Grid, c: usize) -> usize {
    grid.samples * grid.dims.iter().product::<usize>() * s.out_voxels() * c
}

/// S of `[sample][z][y][x][c]` with volumes of `side`, two voxels wide or more: `[tap][c]`.
fn tap_sums<E: Element>(side: [usize; 3], c: usize, dy: &[E], out: &mut [f32]) {
    let [sz, sy, sx] = side;
    let place = |p: usize, n: usize| {
        if p == 0 {
            0
        } else if p + 1 == n {
            2
        } else {
            1
        }
    };
    // Per plane, sums by (first, inner, last) along y and x.
    let planes: Vec<Vec<f64>> = dy
        .par_chunks(sy * sx * c)
        .map(|plane| {
            let mut sums = vec![0f64; 9 * c];
            for (y, line) in plane.chunks_exact(sx * c).enumerate() {
                let (first, rest) = sums[3 * place(y, sy) * c..][..3 * c].split_at_mut(c);
                let (inner, last) = rest.split_at_mut(c);
                add_rows(&line[..c], first);
                add_rows(&line[c..(sx - 1) * c], inner);
                add_rows(&line[(sx - 1) * c..], last);
            }
            sums
        })
        .collect();
    let mut classes = vec![0f64; 27 * c];
    for (plane, sums) in planes.iter().enumerate() {
        let to = &mut classes[9 * place(plane % sz, sz) * c..][..9 * c];
        to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
    }
    // A tap below misses the first voxel of its axis, one above the last.
    let meets = |tap: usize, class: usize| tap == 1 || tap != class;
    for (tap, out) in out.chunks_exact_mut(c).enumerate() {
        let read = (0..27).filter(|k| meets(tap / 9, k / 9) && meets(tap / 3 % 3, k / 3 % 3) && meets(tap % 3, k % 3));
        let read: Vec<&[f64]> = read.map(|k| &classes[k * c..][..c]).collect();
        out.iter_mut().enumerate().for_each(|(i, o)| *o = read.iter().map(|sums| sums[i]).sum::<f64>() as f32);
    }
}

/// The token as `densify` stores it.
fn stored<E: Element>(token: Option<&[f32]>, c: usize) -> Vec<f32> {
    token.map_or(vec![0.0; c], |token| token.iter().map(|&t| E::from_f32(t).to_f32()).collect())
}

/// dw from the blocks x, the token and dy in whole volumes.
fn grad_weight<E: Element>(
    path: Path,
    s: &Shape,
    grid: &Grid,
    (x, token): (&[E], Option<&[f32]>),
    (dy, sums): (&[E], &[f32]),
    dw: &mut [f32],
) {
    let Some(token) = token else {
        return winograd::grad_weight_in_volumes(path, s, grid, x, dy, dw);
    };
    let token = stored::<E>(Some(token), s.c_in);
    let mut above = Scratch::<E>::new(x.len());
    above.par_chunks_mut(256 * s.c_in).enumerate().for_each(|(i, rows)| {
        let from = x[i * 256 * s.c_in..].chunks_exact(s.c_in);
        for (to, from) in rows.chunks_exact_mut(s.c_in).zip(from) {
            to.iter_mut().zip(from).zip(&token).for_each(|((to, x), t)| *to = E::from_f32(x.to_f32() - t));
        }
    });
    winograd::grad_weight_in_volumes(path, s, grid, &above, dy, dw);
    dw.par_chunks_mut(s.c_in * 27).enumerate().for_each(|(co, row)| {
        for (taps, t) in row.chunks_exact_mut(27).zip(&token) {
            taps.iter_mut().enumerate().for_each(|(tap, w)| *w += t * sums[tap * s.c_out + co]);
        }
    });
}

/// Gradient of the token from S, the weight and the sums of dx over the blocks.
fn grad_token(s: &Shape, sums: &[f32], w: &[f32], visible: &[f32], out: &mut [f32]) {
    out.par_iter_mut().enumerate().for_each(|(ci, out)| {
        let of = |co: usize| -> f64 {
            let taps = &w[(co * s.c_in + ci) * 27..][..27];
            taps.iter().enumerate().map(|(tap, w)| *w as f64 * sums[tap * s.c_out + co] as f64).sum()
        };
        *out = ((0..s.c_out).map(of).sum::<f64>() - visible[ci] as f64) as f32;
    });
}

exports! {
    /// Whether a convolution of volumes filled from blocks has its gradients computed on the blocks. bz, by, bx: block side.
    fn vx_conv3d_filled(x: u32, grid: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32) {
        let (grid, s) = parse(grid, [bz, by, bx], c_in, c_out, 3, 1)?;
        let all = [Direction::GradInput, Direction::GradWeight];
        let pays = by_dtype!(tensor::any(x)?.dtype, E => all.iter().all(|&d| path::<E>(&s, &grid, d).is_some()));
        Ok((pays && !gpu::active()) as u32 as f64)
    }
    /// S of dy: `[27][c]`, for volumes of side sz, sy, sx.
    fn vx_conv3d_tap_sums(dy: u32, samples: u32, sz: u32, sy: u32, sx: u32, c: u32) {
        let (side, c) = ([sz, sy, sx].map(|v| v as usize), c as usize);
        if side.iter().any(|&v| v < 2) {
            return Err(format!("tap sums: a volume of {side:?} is not two voxels wide"));
        }
        let dy = tensor::either(dy, samples as usize * side.iter().product::<usize>() * c, "tap sums output gradient")?;
        let (out, handle) = tensor::make(27 * c);
        queue::enqueue(move || {
            by_dtype!(dy.dtype, E => tap_sums(side, c, dy.of::<E>(), out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the blocks.
    fn vx_conv3d_filled_grad_input(dy: u32, weight: u32, grid: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32) {
        let (grid, s) = parse(grid, [bz, by, bx], c_in, c_out, 3, 1)?;
        let dy = tensor::either(dy, volumes_len(&s, &grid, s.c_out), "filled conv3d output gradient")?;
        let weight = tensor::get(weight, s.weight_len(), "filled conv3d weight")?;
        let path = by_dtype!(dy.dtype, E => path::<E>(&s, &grid, Direction::GradInput)).ok_or("filled conv3d: not offered here")?;
        let (dx, handle) = tensor::make_as(s.input_len(&grid), dy.dtype);
        queue::enqueue(move || {
            by_dtype!(dy.dtype, E => {
                let dx = Parts::one_mut(dx.of_mut(), s.c_in);
                winograd::grad_input(path, &s, &grid, true, dy.of::<E>(), weight.values(), dx)
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the weight from the blocks x, the token (0: zeros), dy and its S.
    fn vx_conv3d_filled_grad_weight(x: u32, token: u32, dy: u32, sums: u32, grid: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32) {
        let (grid, s) = parse(grid, [bz, by, bx], c_in, c_out, 3, 1)?;
        let x = tensor::either(x, s.input_len(&grid), "filled conv3d blocks")?;
        let dy = tensor::get_as(dy, volumes_len(&s, &grid, s.c_out), "filled conv3d output gradient", x.dtype)?;
        let sums = tensor::get(sums, 27 * s.c_out, "filled conv3d tap sums")?;
        let token = if token == 0 { None } else { Some(tensor::get(token, s.c_in, "filled conv3d token")?) };
        let path = by_dtype!(x.dtype, E => path::<E>(&s, &grid, Direction::GradWeight)).ok_or("filled conv3d: not offered here")?;
        let (dw, handle) = tensor::make(s.weight_len());
        queue::enqueue(move || {
            let token = token.as_ref().map(|t| t.values());
            by_dtype!(x.dtype, E => {
                grad_weight(path, &s, &grid, (x.of::<E>(), token), (dy.of(), sums.values()), dw.values_mut())
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the token from S, the weight and the sums of dx over the blocks.
    fn vx_conv3d_filled_grad_token(sums: u32, weight: u32, visible: u32, c_in: u32, c_out: u32) {
        let s = Shape::new([2; 3], c_in, c_out, 3, 1)?;
        let sums = tensor::get(sums, 27 * s.c_out, "filled conv3d tap sums")?;
        let weight = tensor::get(weight, s.weight_len(), "filled conv3d weight")?;
        let visible = tensor::get(visible, s.c_in, "filled conv3d sums of dx")?;
        let (dt, handle) = tensor::make(s.c_in);
        queue::enqueue(move || {
            grad_token(&s, sums.values(), weight.values(), visible.values(), dt.values_mut());
            Ok(())
        });
        Ok(handle)
    }
}
