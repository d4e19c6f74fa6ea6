//! Between a block list and whole volumes.
//!
//! Contract. blocks `[block][z][y][x][c]` on a grid of `dims` blocks of side b per sample; volumes
//! `[sample][z][y][x][c]` of side dims * b. densify: voxels of listed blocks take their values, all others the token
//! `[c]` (zero without one). gather: the inverse, drops the voxels of blocks that are not listed. Each is the
//! gradient of the other (densify with no token); the token's gradient is the sum over the voxels not listed.

pub mod launch;
pub mod reference;

use super::rows;
use crate::abi::Result;
use crate::element::{Element, convert};
use crate::grid::{self, Grid};
use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// Where the blocks of a grid lie in whole volumes.
pub struct Shape {
    grid: std::sync::Arc<Grid>,
    side: [usize; 3],
    c: usize,
    /// Block of each cell `[sample][z][y][x]`, or -1.
    cells: Vec<i32>,
}

impl Shape {
    fn new(grid: u32, side: [u32; 3], c: u32) -> Result<Shape> {
        let (grid, side, c) = (grid::get(grid)?, side.map(|s| s as usize), c as usize);
        if side.contains(&0) || c == 0 {
            return Err("densify: a side or the channel count is 0".into());
        }
        let [dz, dy, dx] = grid.dims;
        let mut cells = vec![-1; grid.samples * dz * dy * dx];
        for (i, &[n, z, y, x]) in grid.blocks.iter().enumerate() {
            let [n, z, y, x] = [n, z, y, x].map(|v| v as usize);
            cells[((n * dz + z) * dy + y) * dx + x] = i as i32;
        }
        Ok(Shape { grid, side, c, cells })
    }
    fn blocks_len(&self) -> usize {
        self.grid.blocks.len() * self.side.iter().product::<usize>() * self.c
    }
    fn dense_len(&self) -> usize {
        self.cells.len() * self.side.iter().product::<usize>() * self.c
    }
    /// Values of one row along x of a whole volume.
    fn row(&self) -> usize {
        self.grid.dims[2] * self.side[2] * self.c
    }
    /// For cell `gx` of row `row` = (sample, z, y): the first value of its run in the blocks, if listed.
    #[inline(always)]
    fn run(&self, row: usize, gx: usize) -> Option<usize> {
        let ([bz, by, bx], [dz, dy, dx]) = (self.side, self.grid.dims);
        let (plane, y) = (row / (dy * by), row % (dy * by));
        let (n, z) = (plane / (dz * bz), plane % (dz * bz));
        let block = self.cells[((n * dz + z / bz) * dy + y / by) * dx + gx];
        (block >= 0).then(|| ((block as usize * bz + z % bz) * by + y % by) * bx * self.c)
    }
    /// blocks -> whole volumes.
    fn scatter<E: Element>(&self, blocks: &[E], token: Option<&[f32]>, dense: &mut [E]) {
        let run = self.side[2] * self.c;
        dense.par_chunks_mut(self.row()).with_min_len(16).enumerate().for_each(|(row, out)| {
            for (gx, out) in out.chunks_exact_mut(run).enumerate() {
                match (self.run(row, gx), token) {
                    (Some(at), _) => out.copy_from_slice(&blocks[at..at + run]),
                    (None, Some(token)) => out.chunks_exact_mut(self.c).for_each(|v| convert(token, v)),
                    (None, None) => out.fill(E::default()),
                }
            }
        });
    }
    /// whole volumes -> blocks.
    fn gather<E: Element>(&self, dense: &[E], blocks: &mut [E]) {
        let ([bz, by, bx], [dz, dy, _]) = (self.side, self.grid.dims);
        let run = bx * self.c;
        blocks.par_chunks_mut(bz * by * run).enumerate().for_each(|(block, out)| {
            let [n, z, y, x] = self.grid.blocks[block].map(|v| v as usize);
            for (i, out) in out.chunks_exact_mut(run).enumerate() {
                let row = ((n * dz + z) * bz + i / by) * dy * by + y * by + i % by;
                out.copy_from_slice(&dense[row * self.row() + x * run..][..run]);
            }
        });
    }
    /// Sum of a whole volume's values over the voxels of blocks that are not listed.
    fn hidden_sum<E: Element>(&self, dense: &[E], out: &mut [f32]) {
        let (c, run, row) = (self.c, self.side[2] * self.c, self.row());
        // Here a "row" of `rows` is a whole line along x, so that lines are the unit of the pieces.
        let pieces = rows::pieces(&[0, dense.len() / row], row);
        let sums = rows::sums(&pieces, 1, c, |piece, sum| {
            for line in piece.rows.clone() {
                for (gx, values) in dense[line * row..][..row].chunks_exact(run).enumerate() {
                    if self.run(line, gx).is_none() {
                        for v in values.chunks_exact(c) {
                            sum.iter_mut().zip(v).for_each(|(s, v)| *s += v.to_f32() as f64);
                        }
                    }
                }
            }
        });
        out.iter_mut().zip(sums).for_each(|(o, s)| *o = s as f32);
    }
}

exports! {
    /// Whole volumes from blocks, of their type; token 0 means zeros. bz, by, bx: block side.
    fn vx_densify(x: u32, token: u32, grid: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let s = Shape::new(grid, [bz, by, bx], c)?;
        let x = tensor::either(x, s.blocks_len(), "densify input")?;
        let token = if token == 0 { None } else { Some(tensor::get(token, s.c, "densify token")?) };
        let (y, handle) = tensor::make_as(s.dense_len(), x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::scatter(&s, &x, &token, &y);
            }
            let token = token.as_ref().map(|t| t.values());
            by_dtype!(x.dtype, E => s.scatter(x.of::<E>(), token, y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// The blocks of a grid out of whole volumes.
    fn vx_gather_blocks(x: u32, grid: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let s = Shape::new(grid, [bz, by, bx], c)?;
        let x = tensor::either(x, s.dense_len(), "block gathering input")?;
        let (y, handle) = tensor::make_as(s.blocks_len(), x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::gather(&s, &x, &y);
            }
            by_dtype!(x.dtype, E => s.gather(x.of::<E>(), y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the token: the sum of dy over the voxels not listed.
    fn vx_densify_grad_token(dy: u32, grid: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let s = Shape::new(grid, [bz, by, bx], c)?;
        let dy = tensor::either(dy, s.dense_len(), "densify output gradient")?;
        let (out, handle) = tensor::make(s.c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::hidden_sum(&s, &dy, &out);
            }
            by_dtype!(dy.dtype, E => s.hidden_sum(dy.of::<E>(), out.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_path_equals_the_loop_nest() {
        let mask = [1u8, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0];
        for side in [[1, 1, 1], [2, 3, 4]] {
            let grid = Grid::new(2, [1, 2, 3], &mask).unwrap();
            let mut cells = vec![-1; 12];
            mask.iter().enumerate().filter(|m| *m.1 == 1).enumerate().for_each(|(i, m)| cells[m.0] = i as i32);
            let s = Shape { grid: grid.into(), side, c: 2, cells };
            let x: Vec<f32> = (1..=s.blocks_len()).map(|v| v as f32).collect();
            let mut dense = vec![0.0; s.dense_len()];
            s.scatter(&x, Some(&[-1.0, -2.0]), &mut dense);
            assert_eq!(dense, reference::densify(&s.grid, side, 2, &x, &[-1.0, -2.0]));
            let mut back = vec![0.0; x.len()];
            s.gather(&dense, &mut back);
            assert_eq!(back, x);
            let mut sum = [0.0; 2];
            s.hidden_sum(&dense, &mut sum);
            let hidden = (dense.len() - x.len()) as f32 / 2.0;
            assert_eq!(sum, [-hidden, -2.0 * hidden]);
        }
    }
}
