//! 3D convolution over block lists: 3x3x3 (stride 1, 2) and 1x1x1, zero padding of (kernel-1)/2.
//!
//! Contract. x `[block][z][y][x][c_in]`, y `[block][z][y][x][c_out]`, both on one grid; the block side of y is the
//! side of x divided by the stride. weight `[c_out, c_in, k, k, k]`, bias `[c_out]`. Voxels of blocks that the grid
//! does not list read as zero and are not written: exactly "dense convolution, then mask again" (submanifold rule of
//! sparse masked autoencoding). x, y and their gradients are f32 or bf16, parameters and their gradients f32, sums
//! f32. Stride 2 reads input 2o - 1 + tap, as PyTorch with padding 1.

#[cfg(target_arch = "x86_64")]
pub mod amx;
pub mod choice;
pub mod cpu;
pub mod direct;
pub mod few;
pub mod filled;
pub mod gather;
pub mod isa;
pub mod joined;
pub mod kernels;
pub mod launch;
mod product;
pub mod reference;
pub mod rounded;
mod taps;
#[cfg(test)]
mod tests;
mod tile;
pub mod up;
mod vector;
pub mod weight;
pub mod winograd;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::abi::Result;
use crate::grid::{self, Grid};
use crate::tensor::{Buffer, Sums};
use crate::{gpu, queue, tensor};
use std::sync::Arc;

/// Shape of one convolution: `side` is the block side of the output.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub side: [usize; 3],
    pub c_in: usize,
    pub c_out: usize,
    pub kernel: usize,
    pub stride: usize,
}

impl Shape {
    fn new(side: [u32; 3], c_in: u32, c_out: u32, kernel: u32, stride: u32) -> Result<Shape> {
        if !matches!((kernel, stride), (1, 1) | (3, 1) | (3, 2)) {
            return Err(format!("conv3d: kernel {kernel} with stride {stride} is not offered; use 1/1, 3/1 or 3/2"));
        }
        if side.contains(&0) || c_in == 0 || c_out == 0 {
            return Err("conv3d: a side or a channel count is 0".into());
        }
        let [c_in, c_out, kernel, stride] = [c_in, c_out, kernel, stride].map(|v| v as usize);
        Ok(Shape { side: side.map(|s| s as usize), c_in, c_out, kernel, stride })
    }
    pub fn taps(&self) -> usize {
        self.kernel.pow(3)
    }
    pub fn out_voxels(&self) -> usize {
        self.side.iter().product()
    }
    pub fn in_voxels(&self) -> usize {
        self.out_voxels() * self.stride.pow(3)
    }
    fn input_len(&self, grid: &Grid) -> usize {
        grid.blocks.len() * self.in_voxels() * self.c_in
    }
    fn output_len(&self, grid: &Grid) -> usize {
        grid.blocks.len() * self.out_voxels() * self.c_out
    }
    /// Leaves sums over the samples of y with it, for a norm that follows.
    fn leave(&self, grid: &Grid, sums: Option<Vec<f64>>, y: &Buffer) {
        let starts = || grid.starts.iter().map(|s| s * self.out_voxels()).collect();
        y.leave_sums(sums.map(|values| Sums { starts: starts(), values }));
    }
    pub fn weight_len(&self) -> usize {
        self.c_in * self.c_out * self.taps()
    }
}

fn parse(grid: u32, side: [u32; 3], c_in: u32, c_out: u32, kernel: u32, stride: u32) -> Result<(Arc<Grid>, Shape)> {
    Ok((grid::get(grid)?, Shape::new(side, c_in, c_out, kernel, stride)?))
}

exports! {
    /// y = conv(x, weight) + bias; bias 0 means none. bz, by, bx: block side of y. normed: a norm follows.
    fn vx_conv3d(x: u32, weight: u32, bias: u32, grid: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32, kernel: u32, stride: u32, normed: bool) {
        let (grid, s) = parse(grid, [bz, by, bx], c_in, c_out, kernel, stride)?;
        let x = tensor::either(x, s.input_len(&grid), "conv3d input")?;
        let weight = tensor::get(weight, s.weight_len(), "conv3d weight")?;
        let bias = if bias == 0 { None } else { Some(tensor::get(bias, s.c_out, "conv3d bias")?) };
        let (y, handle) = tensor::make_as(s.output_len(&grid), x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&s, &grid, launch::Joined::of(&x), &weight, bias.as_deref(), &y);
            }
            let bias = bias.as_ref().map(|b| b.values());
            let sums = by_dtype!(x.dtype, E => {
                cpu::forward(&s, &grid, x.of::<E>(), weight.values(), (bias, normed), y.of_mut())
            });
            s.leave(&grid, sums, &y);
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the input from that of the output.
    fn vx_conv3d_grad_input(dy: u32, weight: u32, grid: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32, kernel: u32, stride: u32) {
        let (grid, s) = parse(grid, [bz, by, bx], c_in, c_out, kernel, stride)?;
        let dy = tensor::either(dy, s.output_len(&grid), "conv3d output gradient")?;
        let weight = tensor::get(weight, s.weight_len(), "conv3d weight")?;
        let (dx, handle) = tensor::make_as(s.input_len(&grid), dy.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_input(&s, &grid, &dy, &weight, launch::Joined::of(&dx));
            }
            by_dtype!(dy.dtype, E => cpu::grad_input(&s, &grid, dy.of::<E>(), weight.values(), dx.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the weight; sums run in block order, so the bits do not depend on the number of cores.
    fn vx_conv3d_grad_weight(x: u32, dy: u32, grid: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32, kernel: u32, stride: u32) {
        let (grid, s) = parse(grid, [bz, by, bx], c_in, c_out, kernel, stride)?;
        let x = tensor::either(x, s.input_len(&grid), "conv3d input")?;
        let dy = tensor::get_as(dy, s.output_len(&grid), "conv3d output gradient", x.dtype)?;
        let (dw, handle) = tensor::make(s.weight_len());
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_weight(&s, &grid, launch::Joined::of(&x), &dy, &dw);
            }
            by_dtype!(x.dtype, E => cpu::grad_weight(&s, &grid, x.of::<E>(), dy.of(), dw.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Sum over rows of a `[rows][channels]` tensor: the gradient of a bias.
    fn vx_sum_rows(dy: u32, rows: u32, channels: u32) {
        let (rows, c) = (rows as usize, channels as usize);
        let dy = tensor::either(dy, rows * c, "output gradient")?;
        let (db, handle) = tensor::make(c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::sum_rows(&dy, rows, c, &db);
            }
            by_dtype!(dy.dtype, E => weight::sum_rows(dy.of::<E>(), c, db.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Transposed convolution 2x2x2, stride 2. x on side b, y on side 2b; weight `[c_in, c_out, 2, 2, 2]`.
    fn vx_upconv3d(x: u32, weight: u32, bias: u32, blocks: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32) {
        let s = Up::new(blocks, [bz, by, bx], c_in, c_out);
        let x = tensor::either(x, s.rows() * s.c_in, "transposed convolution input")?;
        let weight = tensor::get(weight, 8 * s.c_in * s.c_out, "transposed convolution weight")?;
        let bias = tensor::get(bias, s.c_out, "transposed convolution bias")?;
        let (y, handle) = tensor::make_as(8 * s.rows() * s.c_out, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::up_forward(&s, &x, &weight, &bias, &y);
            }
            by_dtype!(x.dtype, E => cpu::up_forward(&s, x.of::<E>(), weight.values(), bias.values(), y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the input of the transposed convolution.
    fn vx_upconv3d_grad_input(dy: u32, weight: u32, blocks: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32) {
        let s = Up::new(blocks, [bz, by, bx], c_in, c_out);
        let dy = tensor::either(dy, 8 * s.rows() * s.c_out, "transposed convolution output gradient")?;
        let weight = tensor::get(weight, 8 * s.c_in * s.c_out, "transposed convolution weight")?;
        let (dx, handle) = tensor::make_as(s.rows() * s.c_in, dy.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::up_grad_input(&s, &dy, &weight, &dx);
            }
            by_dtype!(dy.dtype, E => cpu::up_grad_input(&s, dy.of::<E>(), weight.values(), dx.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the weight of the transposed convolution.
    fn vx_upconv3d_grad_weight(x: u32, dy: u32, blocks: u32, bz: u32, by: u32, bx: u32, c_in: u32, c_out: u32) {
        let s = Up::new(blocks, [bz, by, bx], c_in, c_out);
        let x = tensor::either(x, s.rows() * s.c_in, "transposed convolution input")?;
        let dy = tensor::get_as(dy, 8 * s.rows() * s.c_out, "transposed convolution output gradient", x.dtype)?;
        let (dw, handle) = tensor::make(8 * s.c_in * s.c_out);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::up_grad_weight(&s, &x, &dy, &dw);
            }
            by_dtype!(x.dtype, E => cpu::up_grad_weight(&s, x.of::<E>(), dy.of(), dw.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
}

/// Shape of a transposed convolution: `side` is the block side of its input.
#[derive(Clone, Copy, Debug)]
pub struct Up {
    pub blocks: usize,
    pub side: [usize; 3],
    pub c_in: usize,
    pub c_out: usize,
}

impl Up {
    fn new(blocks: u32, side: [u32; 3], c_in: u32, c_out: u32) -> Up {
        Up { blocks: blocks as usize, side: side.map(|s| s as usize), c_in: c_in as usize, c_out: c_out as usize }
    }
    pub fn voxels(&self) -> usize {
        self.side.iter().product()
    }
    pub fn rows(&self) -> usize {
        self.blocks * self.voxels()
    }
}
