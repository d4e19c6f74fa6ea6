//! Sub-lattices: every second voxel of a volume, at one or more offsets, beside each other on channels.
//!
//! Contract. x `[block][2z][2y][2x][c]` -> y `[block][z][y][x][n * c]`, n offsets o = 4a + 2b + d:
//! y[v][k * c + i] = x[2v + (a, b, d) of offset k][i]; with `inner` y[v][i * n + k] instead. Backward: the sum of what
//! was read. An offset may be listed twice; voxels at offsets not listed have gradient 0.

pub mod launch;

use crate::abi::Result;
use crate::element::Element;
use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// `side` is the block side of y.
#[derive(Clone)]
pub struct Shape {
    rows: usize,
    side: [usize; 3],
    c: usize,
    offsets: Vec<usize>,
    inner: bool,
}

impl Shape {
    fn new(blocks: u32, side: [u32; 3], c: u32, offsets: &[u8], inner: bool) -> Result<Shape> {
        if offsets.is_empty() || offsets.iter().any(|&o| o > 7) {
            return Err("lattice: offsets are 0 to 7, at least one".into());
        }
        let side = side.map(|v| v as usize);
        let rows = blocks as usize * side[0] * side[1];
        Ok(Shape { rows, side, c: c as usize, offsets: offsets.iter().map(|&o| o as usize).collect(), inner })
    }
    fn width(&self) -> usize {
        self.side[2] * self.c
    }
    fn fine_len(&self) -> usize {
        8 * self.rows * self.width()
    }
    fn coarse_len(&self) -> usize {
        self.rows * self.width() * self.offsets.len()
    }
    /// First fine value of coarse voxel x = 0 of row (block, z, y) at an offset.
    fn fine(&self, row: usize, offset: usize) -> usize {
        let (plane, y) = (row / self.side[1], row % self.side[1]);
        let line = (2 * plane + (offset >> 2)) * 2 * self.side[1] + 2 * y + (offset >> 1 & 1);
        (line * 2 * self.side[2] + (offset & 1)) * self.c
    }
    /// Calls `f(coarse index in the row, fine index relative to the start of the offset)`.
    fn each(&self, k: usize, mut f: impl FnMut(usize, usize)) {
        let (c, n) = (self.c, self.offsets.len());
        for x in 0..self.side[2] {
            for i in 0..c {
                let at = if self.inner { i * n + k } else { k * c + i };
                f(x * n * c + at, 2 * x * c + i);
            }
        }
    }
}

exports! {
    /// Sub-lattices of x beside each other; bz, by, bx: block side of y.
    fn vx_lattice(x: u32, blocks: u32, bz: u32, by: u32, bx: u32, c: u32, offsets: slice[u8], inner: bool) {
        let s = Shape::new(blocks, [bz, by, bx], c, offsets, inner)?;
        let x = tensor::either(x, s.fine_len(), "lattice input")?;
        let (y, handle) = tensor::make_as(s.coarse_len(), x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&s, &x, &y);
            }
            by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                y.of_mut::<E>().par_chunks_mut(s.width() * s.offsets.len()).enumerate().for_each(|(row, y)| {
                    for (k, &offset) in s.offsets.iter().enumerate() {
                        let x = &x[s.fine(row, offset)..];
                        s.each(k, |to, from| y[to] = x[from]);
                    }
                })
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of `vx_lattice`.
    fn vx_lattice_grad(dy: u32, blocks: u32, bz: u32, by: u32, bx: u32, c: u32, offsets: slice[u8], inner: bool) {
        let s = Shape::new(blocks, [bz, by, bx], c, offsets, inner)?;
        let dy = tensor::either(dy, s.coarse_len(), "lattice output gradient")?;
        let (dx, handle) = tensor::make_as(s.fine_len(), dy.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::gradient(&s, &dy, &dx);
            }
            // One fine row (block, z, y) per task: the offsets that read it are those with its parities.
            by_dtype!(dy.dtype, E => {
                let dy = dy.of::<E>();
                dx.of_mut::<E>().par_chunks_mut(2 * s.width()).enumerate().for_each(|(line, dx)| {
                    dx.fill(E::default());
                    let (plane, y) = (line / (2 * s.side[1]), line % (2 * s.side[1]));
                    let row = plane / 2 * s.side[1] + y / 2;
                    let dy = &dy[row * s.width() * s.offsets.len()..];
                    for (k, &offset) in s.offsets.iter().enumerate() {
                        if offset >> 1 == plane % 2 * 2 + y % 2 {
                            let start = (offset & 1) * s.c;
                            s.each(k, |from, to| {
                                let dx = &mut dx[start + to];
                                *dx = E::from_f32(dx.to_f32() + dy[from].to_f32());
                            });
                        }
                    }
                })
            });
            Ok(())
        });
        Ok(handle)
    }
}
