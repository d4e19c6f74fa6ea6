//! Max-pooling.
//!
//! Contract. x `[block][2z][2y][2x][c]` -> y `[block][z][y][x][c]`, the largest value of each 2x2x2 cube (cubes never
//! cross blocks, so hidden voxels never enter). dx is dy at the first of the largest values, in the order z, y, x, and 0
//! elsewhere (PyTorch). The gradient looks at x again: no indices are stored.

pub mod launch;

use super::rows;
use crate::element::Element;
use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// Where the eight voxels of output voxel `v` of row `y` begin, in a pair of fine planes of `sy` x `sx` cubes.
fn cube(y: usize, v: usize, sy: usize, sx: usize, c: usize) -> [usize; 8] {
    std::array::from_fn(|k| (((k / 4 * sy + y) * 2 + k / 2 % 2) * 2 * sx + 2 * v + k % 2) * c)
}

/// Maximum of each cube; `[sy, sx]`: cubes of a pair of planes.
fn largest<E: Element>(x: &[E], [sy, sx]: [usize; 2], c: usize, y: &mut [E]) {
    let plane = sy * sx * c;
    y.par_chunks_mut(plane).zip(x.par_chunks(8 * plane)).for_each(|(y, x)| {
        rows::vectorised(|| {
            for (i, y) in y.chunks_exact_mut(c).enumerate() {
                let [first, rest @ ..] = cube(i / sx, i % sx, sy, sx, c);
                y.copy_from_slice(&x[first..][..c]);
                for at in rest {
                    for (y, x) in y.iter_mut().zip(&x[at..]) {
                        let v = x.to_f32();
                        *y = if v > y.to_f32() || v.is_nan() { *x } else { *y };
                    }
                }
            }
        })
    });
}

/// dy at the first of the largest values of each cube, 0 elsewhere.
fn largest_grad<E: Element>(dy: &[E], x: &[E], y: &[E], [sy, sx]: [usize; 2], c: usize, dx: &mut [E]) {
    let plane = sy * sx * c;
    let inputs = x.par_chunks(8 * plane).zip(y.par_chunks(plane)).zip(dy.par_chunks(plane));
    dx.par_chunks_mut(8 * plane).zip(inputs).for_each(|(dx, ((x, y), dy))| {
        let mut rest = vec![E::default(); c];
        rows::vectorised(|| {
            for i in 0..sy * sx {
                rest.copy_from_slice(&dy[i * c..][..c]);
                for at in cube(i / sx, i % sx, sy, sx, c) {
                    let values = x[at..].iter().zip(&y[i * c..][..c]);
                    for ((dx, rest), (x, y)) in dx[at..].iter_mut().zip(&mut rest).zip(values) {
                        let hit = x == y;
                        *dx = if hit { *rest } else { E::default() };
                        *rest = if hit { E::default() } else { *rest };
                    }
                }
            }
        });
    });
}

exports! {
    /// Maximum of 2x2x2 cubes; bz, by, bx: block side of the output.
    fn vx_max_pool(x: u32, blocks: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let [planes, sy, sx, c] = [blocks * bz, by, bx, c].map(|v| v as usize);
        let len = planes * sy * sx * c;
        let x = tensor::either(x, 8 * len, "pooling input")?;
        let (y, handle) = tensor::make_as(len, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::largest([planes, sy, sx, c], &x, &y);
            }
            by_dtype!(x.dtype, E => largest(x.of::<E>(), [sy, sx], c, y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of `vx_max_pool`. bz, by, bx: block side of dy.
    fn vx_max_pool_grad(dy: u32, x: u32, y: u32, blocks: u32, bz: u32, by: u32, bx: u32, c: u32) {
        let [planes, sy, sx, c] = [blocks * bz, by, bx, c].map(|v| v as usize);
        let len = planes * sy * sx * c;
        let x = tensor::either(x, 8 * len, "pooling input")?;
        let y = tensor::get_as(y, len, "pooling output", x.dtype)?;
        let dy = tensor::get_as(dy, len, "pooling output gradient", x.dtype)?;
        let (dx, handle) = tensor::make_as(8 * len, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::largest_grad([planes, sy, sx, c], &dy, &x, &y, &dx);
            }
            by_dtype!(x.dtype, E => largest_grad(dy.of::<E>(), x.of(), y.of(), [sy, sx], c, dx.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
}
