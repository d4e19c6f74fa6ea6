//! Depthwise 3x3x3 convolution, one kernel per channel, with stride 1 or 2, and its transpose.
//!
//! Contract. Tensors f32 or bf16, sums f32. fine `[block][z][y][x][c]`, coarse `[block][ceil(z/s)][ceil(y/s)][ceil(x/s)][c]` on one grid; weight
//! `[c, 1, 3, 3, 3]`, bias `[c]`. Down: coarse[o] = bias + sum over taps t of weight[t] * fine[s*o - 1 + t]. Up, its
//! transpose: fine[p] = bias + sum over taps with s*o - 1 + t = p of weight[t] * coarse[o] (PyTorch: padding 1, no
//! output padding). Voxels of blocks that the grid does not list read as zero and are not written. A side that the
//! stride does not divide is offered where the grid has one block per sample. The gradient of the input of one
//! direction is the other direction; the gradient of the weight is weight[t] = sum over o of fine[s*o - 1 + t] *
//! coarse[o] in both.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::abi::Result;
use crate::grid::{self, Grid};
use crate::{gpu, queue, tensor};
use std::sync::Arc;

/// Shape of one depthwise convolution: `side` is the fine block side.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub side: [usize; 3],
    pub c: usize,
    pub stride: usize,
}

impl Shape {
    fn new(grid: &Grid, side: [u32; 3], c: u32, stride: u32) -> Result<Shape> {
        let s = Shape { side: side.map(|v| v as usize), c: c as usize, stride: stride as usize };
        if !matches!(stride, 1 | 2) || c == 0 || side.contains(&0) {
            return Err(format!("depthwise: stride {stride}, {c} channels, side {side:?}; strides are 1 and 2"));
        }
        if grid.dims != [1; 3] && side.iter().any(|v| v % stride != 0) {
            return Err(format!("depthwise: stride {stride} does not divide the block side {side:?}"));
        }
        Ok(s)
    }
    pub fn coarse(&self) -> [usize; 3] {
        self.side.map(|v| v.div_ceil(self.stride))
    }
    fn len(&self, grid: &Grid, side: [usize; 3]) -> usize {
        grid.blocks.len() * side.iter().product::<usize>() * self.c
    }
}

fn parse(grid: u32, side: [u32; 3], c: u32, stride: u32) -> Result<(Arc<Grid>, Shape)> {
    let grid = grid::get(grid)?;
    let shape = Shape::new(&grid, side, c, stride)?;
    Ok((grid, shape))
}

exports! {
    /// Down (up false) or up; bias 0 means none. z, y, x: block side of the fine tensor.
    fn vx_depthwise(x: u32, weight: u32, bias: u32, grid: u32, sz: u32, sy: u32, sx: u32, c: u32, stride: u32, up: bool) {
        let (grid, s) = parse(grid, [sz, sy, sx], c, stride)?;
        let (from, to) = if up { (s.coarse(), s.side) } else { (s.side, s.coarse()) };
        let x = tensor::either(x, s.len(&grid, from), "depthwise input")?;
        let weight = tensor::get(weight, 27 * s.c, "depthwise weight")?;
        let bias = if bias == 0 { None } else { Some(tensor::get(bias, s.c, "depthwise bias")?) };
        let (y, handle) = tensor::make_as(s.len(&grid, to), x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::apply(&s, &grid, up, &x, &weight, bias.as_deref(), &y);
            }
            let bias = bias.as_ref().map(|b| b.values());
            by_dtype!(x.dtype, E => cpu::apply(&s, &grid, up, x.of::<E>(), weight.values(), bias, y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the weight from the fine and the coarse tensor, one of them a gradient.
    fn vx_depthwise_grad_weight(fine: u32, coarse: u32, grid: u32, sz: u32, sy: u32, sx: u32, c: u32, stride: u32) {
        let (grid, s) = parse(grid, [sz, sy, sx], c, stride)?;
        let fine = tensor::either(fine, s.len(&grid, s.side), "depthwise fine tensor")?;
        let coarse = tensor::get_as(coarse, s.len(&grid, s.coarse()), "depthwise coarse tensor", fine.dtype)?;
        let (dw, handle) = tensor::make(27 * s.c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_weight(&s, &grid, &fine, &coarse, &dw);
            }
            by_dtype!(fine.dtype, E => cpu::grad_weight(&s, &grid, fine.of::<E>(), coarse.of(), dw.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(a: f32, n: usize) -> Vec<f32> {
        (0..n).map(|i| (a * i as f32 + 0.3).sin()).collect()
    }

    fn near(got: &[f32], want: &[f32]) {
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() < 2e-5 * (1.0 + w.abs()), "value {i}: {g} against {w}");
        }
    }

    #[test]
    fn fast_path_equals_the_loop_nest() {
        let masked = Grid::new(2, [2, 2, 2], &[1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1]).unwrap();
        let dense = Grid::new(2, [1, 1, 1], &[1, 1]).unwrap();
        for (grid, side) in [(&masked, [4, 2, 6]), (&dense, [5, 7, 3]), (&dense, [1, 2, 4]), (&dense, [4, 4, 4])] {
            for (stride, c) in [(1, 3), (2, 3), (1, 16), (2, 37)] {
                if let Ok(s) = Shape::new(grid, side, c, stride) {
                    let (fine, coarse) = (wave(0.7, s.len(grid, s.side)), wave(0.4, s.len(grid, s.coarse())));
                    let (w, b) = (wave(0.9, 27 * s.c), wave(0.2, s.c));
                    for (up, x, n) in [(false, &fine, coarse.len()), (true, &coarse, fine.len())] {
                        let (mut got, mut want) = (vec![0.0; n], vec![0.0; n]);
                        cpu::apply(&s, grid, up, x, &w, Some(&b), &mut got);
                        reference::apply(&s, grid, up, x, &w, Some(&b), &mut want);
                        near(&got, &want);
                    }
                    let (mut got, mut want) = (vec![0.0; w.len()], vec![0.0; w.len()]);
                    cpu::grad_weight(&s, grid, &fine, &coarse, &mut got);
                    reference::grad_weight(&s, grid, &fine, &coarse, &mut want);
                    near(&got, &want);
                }
            }
        }
    }
}
