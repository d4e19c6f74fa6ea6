//! Tokens: cubes of `token` voxels per side as rows, on a grid that lists the kept ones.
//!
//! Contract. Rows `[block][z][y][x]` of a layout (grid, block side b): the token of a row lies at block * b + offset in
//! the token grid of dims * b tokens, so that kept tokens are blocks of side 1 and a whole grid is one block per sample.
//! - patchify: volumes `[sample][z][y][x][c]` of side dims * b * token -> rows `[c][token][token][token]`, the order of
//!   a convolution weight; tokens that are not listed are not read. Its gradient writes 0 there.
//! - positions: y = x + table[token], table `[tokens of the grid][c]`; gradient of the table: sum over samples.
//! - rope: each head of h channels is three axes of h / 3; pair j of an axis (channels 2j, 2j + 1) turns by the angle
//!   position * 10000^(-j / (h / 6)), positions integer token indices of that axis, z first. The gradient turns back.

pub mod launch;

use super::rows;
use crate::abi::Result;
use crate::element::Element;
use crate::grid::{self, Grid};
use crate::wide;
use crate::{gpu, queue, tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Where the rows of a token tensor lie.
pub struct Shape {
    grid: Arc<Grid>,
    side: [usize; 3],
}

impl Shape {
    fn new(grid: u32, side: [u32; 3]) -> Result<Shape> {
        if side.contains(&0) {
            return Err("tokens: a side is 0".into());
        }
        Ok(Shape { grid: grid::get(grid)?, side: side.map(|s| s as usize) })
    }
    fn per_block(&self) -> usize {
        self.side.iter().product()
    }
    fn rows(&self) -> usize {
        self.grid.blocks.len() * self.per_block()
    }
    /// Tokens per axis.
    fn dims(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.grid.dims[a] * self.side[a])
    }
    fn cells(&self) -> usize {
        self.dims().iter().product()
    }
    /// Sample and place of a row.
    #[inline(always)]
    fn at(&self, row: usize) -> (usize, [usize; 3]) {
        let ([_, sy, sx], offset) = (self.side, row % self.per_block());
        let [n, z, y, x] = self.grid.blocks[row / self.per_block()].map(|v| v as usize);
        let inner = [offset / (sy * sx), offset / sx % sy, offset % sx];
        (n, [z * self.side[0] + inner[0], y * sy + inner[1], x * sx + inner[2]])
    }
    /// Index of a row's token in the table of positions.
    #[inline(always)]
    fn cell(&self, row: usize) -> usize {
        let ([_, dy, dx], (_, [z, y, x])) = (self.dims(), self.at(row));
        (z * dy + y) * dx + x
    }
    /// Calls `copy(value in the row, value in the volume)` for every value of a row.
    #[inline(always)]
    fn voxels(&self, row: usize, token: usize, c: usize, mut copy: impl FnMut(usize, usize)) {
        let ([dz, dy, dx], (n, [z, y, x])) = (self.dims().map(|d| d * token), self.at(row));
        for i in 0..token * token {
            let (vz, vy) = (z * token + i / token, y * token + i % token);
            let from = (((n * dz + vz) * dy + vy) * dx + x * token) * c;
            for k in 0..c {
                for j in 0..token {
                    copy((k * token * token + i) * token + j, from + j * c + k);
                }
            }
        }
    }
}

wide! {
    /// Each head of x with its pairs of channels turned by (cosine, sine).
    fn rotate<E: Element>(x: &[E], turn: &[(f32, f32)], y: &mut [E]) {
        let width = 2 * turn.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for ((y, x), (cos, sin)) in y.chunks_exact_mut(2).zip(x.chunks_exact(2)).zip(turn) {
                let (u, v) = (x[0].to_f32(), x[1].to_f32());
                y[0] = E::from_f32(u * cos - v * sin);
                y[1] = E::from_f32(v * cos + u * sin);
            }
        }
    }
}

/// Cosine and `sign` times sine per axis, position and pair: `[axis][position][pair]`.
fn turns(dims: [usize; 3], pairs: usize, sign: f64) -> [Vec<(f32, f32)>; 3] {
    dims.map(|n| {
        (0..n * pairs)
            .map(|i| {
                let angle = (i / pairs) as f64 * 10000f64.powf(-((i % pairs) as f64) / pairs as f64);
                (angle.cos() as f32, (sign * angle.sin()) as f32)
            })
            .collect()
    })
}

exports! {
    /// Voxels of the listed tokens as rows `[c][token][token][token]`.
    fn vx_patchify(x: u32, grid: u32, bz: u32, by: u32, bx: u32, token: u32, c: u32) {
        let (s, token, c) = (Shape::new(grid, [bz, by, bx])?, token as usize, c as usize);
        let width = c * token.pow(3);
        let x = tensor::either(x, s.grid.samples * s.cells() * width, "patchify input")?;
        let (y, handle) = tensor::make_as(s.rows() * width, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::patchify(&s, token, c, &x, &y);
            }
            by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                y.of_mut::<E>().par_chunks_mut(width).enumerate().for_each(|(row, y)| {
                    s.voxels(row, token, c, |to, from| y[to] = x[from]);
                })
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the volumes: zero where no token is listed.
    fn vx_patchify_grad(dy: u32, grid: u32, bz: u32, by: u32, bx: u32, token: u32, c: u32) {
        let (s, token, c) = (Shape::new(grid, [bz, by, bx])?, token as usize, c as usize);
        let width = c * token.pow(3);
        let dy = tensor::either(dy, s.rows() * width, "patchify gradient")?;
        let (dx, handle) = tensor::make_as(s.grid.samples * s.cells() * width, dy.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::patchify_grad(&s, token, c, &dy, &dx);
            }
            by_dtype!(dy.dtype, E => {
                let dx = dx.of_mut::<E>();
                dx.fill(E::default());
                for (row, dy) in dy.of::<E>().chunks_exact(width).enumerate() {
                    s.voxels(row, token, c, |from, to| dx[to] = dy[from]);
                }
            });
            Ok(())
        });
        Ok(handle)
    }
    /// x + table[token].
    fn vx_positions(x: u32, table: u32, grid: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let (s, c) = (Shape::new(grid, [bz, by, bx])?, c as usize);
        let x = tensor::either(x, s.rows() * c, "positions input")?;
        let table = tensor::get(table, s.cells() * c, "position table")?;
        let (y, handle) = tensor::make_as(s.rows() * c, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::positions(&s, c, &x, &table, &y);
            }
            by_dtype!(x.dtype, E => {
                let (x, table) = (x.of::<E>(), table.values());
                rows::fill(&rows::pieces(&[0, s.rows()], c), c, y.of_mut::<E>(), |piece, y| {
                    for (y, row) in y.chunks_exact_mut(c).zip(piece.rows.clone()) {
                        let terms = x[row * c..].iter().zip(&table[s.cell(row) * c..]);
                        y.iter_mut().zip(terms).for_each(|(y, (x, t))| *y = E::from_f32(x.to_f32() + t));
                    }
                })
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the table of positions: the samples in turn.
    fn vx_positions_grad(dy: u32, grid: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let (s, c) = (Shape::new(grid, [bz, by, bx])?, c as usize);
        let dy = tensor::either(dy, s.rows() * c, "positions gradient")?;
        let (dt, handle) = tensor::make(s.cells() * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::positions_grad(&s, c, &dy, &dt);
            }
            let dt = dt.values_mut();
            dt.fill(0.0);
            by_dtype!(dy.dtype, E => for (row, dy) in dy.of::<E>().chunks_exact(c).enumerate() {
                dt[s.cell(row) * c..][..c].iter_mut().zip(dy).for_each(|(t, d)| *t += d.to_f32());
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Rotary position embedding of `[rows][heads][c / heads]`; back: the inverse rotation.
    fn vx_rope(x: u32, grid: u32, bz: u32, by: u32, bx: u32, heads: u32, c: u32, back: bool) {
        let (s, heads, c) = (Shape::new(grid, [bz, by, bx])?, heads as usize, c as usize);
        if heads == 0 || c % (6 * heads) != 0 {
            return Err(format!("rope: {c} channels in {heads} heads; a head needs a multiple of 6"));
        }
        let x = tensor::either(x, s.rows() * c, "rope input")?;
        let (y, handle) = tensor::make_as(s.rows() * c, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::rope(&s, heads, c / heads / 6, if back { -1.0 } else { 1.0 }, &x, &y);
            }
            let pairs = c / heads / 6;
            let tables = turns(s.dims(), pairs, if back { -1.0 } else { 1.0 });
            by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                rows::fill(&rows::pieces(&[0, s.rows()], c), c, y.of_mut::<E>(), |piece, y| {
                    let mut turn = vec![(0f32, 0f32); 3 * pairs];
                    for (y, row) in y.chunks_exact_mut(c).zip(piece.rows.clone()) {
                        let (_, place) = s.at(row);
                        for a in 0..3 {
                            turn[a * pairs..][..pairs].copy_from_slice(&tables[a][place[a] * pairs..][..pairs]);
                        }
                        rotate(&x[row * c..][..c], &turn, y);
                    }
                })
            });
            Ok(())
        });
        Ok(handle)
    }
}
