//! Pooling.
//!
//! Contract. average: x `[block][2z][2y][2x][c]` -> y `[block][z][y][x][c]`, the mean of each 2x2x2 cube (cubes never
//! cross blocks, so hidden voxels never enter). global: x -> `[samples][c]`, the mean over the listed voxels of each
//! sample, in f32; a sample with none is an error.

pub mod launch;

use super::rows;
use crate::abi::Result;
use crate::element::{Dtype, Element};
use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// Rows (z, y) of all blocks: `(block * z + z) * y + y` -> first value of the four fine rows it covers.
fn fine_rows(row: usize, side: [usize; 3], c: usize) -> [usize; 4] {
    let [_, sy, sx] = side;
    let (plane, y) = (row / sy, row % sy);
    [0, 1, 2, 3].map(|i| ((2 * plane + i / 2) * 2 * sy + 2 * y + i % 2) * 2 * sx * c)
}

/// First row of each sample; every sample must have rows.
fn filled(grid: u32, voxels: u32) -> Result<Vec<usize>> {
    let starts = rows::starts(grid, voxels)?;
    match starts.windows(2).position(|s| s[0] == s[1]) {
        Some(n) => Err(format!("globalAverage: patch {n} of the batch has no visible voxel; hide fewer blocks")),
        None => Ok(starts),
    }
}

/// The mean of each 2x2x2 cube; `side` of y.
#[allow(clippy::needless_range_loop)]
fn average<E: Element>(x: &[E], side: [usize; 3], c: usize, y: &mut [E]) {
    let width = side[2] * c;
    y.par_chunks_mut(width.max(1)).with_min_len(8).enumerate().for_each(|(row, y)| {
        let fine = fine_rows(row, side, c).map(|at| &x[at..at + 2 * width]);
        rows::vectorised(|| {
            for (v, y) in y.chunks_exact_mut(c).enumerate() {
                let [a, b, d, e] = fine.map(|row| row[2 * v * c..2 * (v + 1) * c].split_at(c));
                let pair = |(low, high): (&[E], &[E]), i: usize| low[i].to_f32() + high[i].to_f32();
                for i in 0..c {
                    y[i] = E::from_f32(0.125 * ((pair(a, i) + pair(b, i)) + (pair(d, i) + pair(e, i))));
                }
            }
        });
    });
}

/// An eighth of dy at each of the eight voxels; `side` of dy.
fn average_grad<E: Element>(dy: &[E], side: [usize; 3], c: usize, dx: &mut [E]) {
    let [_, sy, sx] = side;
    dx.par_chunks_mut((2 * sx * c).max(1)).with_min_len(8).enumerate().for_each(|(fine, dx)| {
        let row = fine / (2 * sy) / 2 * sy + fine % (2 * sy) / 2;
        let dy = &dy[row * sx * c..][..sx * c];
        rows::vectorised(|| {
            for (v, dx) in dx.chunks_exact_mut(c).enumerate() {
                for (dx, dy) in dx.iter_mut().zip(&dy[v / 2 * c..]) {
                    *dx = E::from_f32(0.125 * dy.to_f32());
                }
            }
        });
    });
}

exports! {
    /// Mean of 2x2x2 cubes; bz, by, bx: block side of the output.
    fn vx_average_pool(x: u32, blocks: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let (side, c) = ([bz, by, bx].map(|v| v as usize), c as usize);
        let len = blocks as usize * side.iter().product::<usize>() * c;
        let x = tensor::either(x, 8 * len, "pooling input")?;
        let (y, handle) = tensor::make_as(len, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::average(blocks, side, c, &x, &y);
            }
            by_dtype!(x.dtype, E => average(x.of::<E>(), side, c, y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of `vx_average_pool`: an eighth of dy at each of the eight voxels. bz, by, bx: block side of dy.
    fn vx_average_pool_grad(dy: u32, blocks: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let (side, c) = ([bz, by, bx].map(|v| v as usize), c as usize);
        let len = blocks as usize * side.iter().product::<usize>() * c;
        let dy = tensor::either(dy, len, "pooling output gradient")?;
        let (dx, handle) = tensor::make_as(8 * len, dy.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::average_grad(blocks, side, c, &dy, &dx);
            }
            by_dtype!(dy.dtype, E => average_grad(dy.of::<E>(), side, c, dx.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Mean over the rows of each sample: `[samples][c]`. voxels: rows per block.
    fn vx_global_average(x: u32, grid: u32, voxels: u32, c: u32) {
        let (starts, c) = (filled(grid, voxels)?, c as usize);
        let samples = starts.len() - 1;
        let x = tensor::either(x, starts[samples] * c, "pooling input")?;
        let (y, handle) = tensor::make(samples * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::global(starts, c, &x, &y);
            }
            let sums = by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                rows::sums(&rows::pieces(&starts, c), samples, c, |piece, sum| {
                    for row in x[piece.rows.start * c..piece.rows.end * c].chunks_exact(c) {
                        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v.to_f32() as f64);
                    }
                })
            });
            for (i, (y, sum)) in y.values_mut().iter_mut().zip(sums).enumerate() {
                *y = (sum / (starts[i / c + 1] - starts[i / c]) as f64) as f32;
            }
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of `vx_global_average`: dy of the sample, divided by its rows, at each of them. dtype: of the input.
    fn vx_global_average_grad(dy: u32, grid: u32, voxels: u32, c: u32, dtype: u32) {
        let (starts, c) = (filled(grid, voxels)?, c as usize);
        let samples = starts.len() - 1;
        let dy = tensor::get(dy, samples * c, "pooling output gradient")?;
        let (dx, handle) = tensor::make_as(starts[samples] * c, Dtype::parse(dtype)?);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::global_grad(&starts, c, &dy, &dx);
            }
            let dy = dy.values();
            by_dtype!(dx.dtype, E => rows::fill(&rows::pieces(&starts, c), c, dx.of_mut::<E>(), |piece, dx| {
                let share = 1.0 / (starts[piece.sample + 1] - starts[piece.sample]) as f32;
                for row in dx.chunks_exact_mut(c) {
                    row.iter_mut().zip(&dy[piece.sample * c..]).for_each(|(dx, dy)| *dx = E::from_f32(share * dy));
                }
            }));
            Ok(())
        });
        Ok(handle)
    }
}
