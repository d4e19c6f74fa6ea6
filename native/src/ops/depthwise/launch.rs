//! The kernels of `kernel.cu` as the contract asks for them.

use super::Shape;
use crate::abi::Result;
use crate::gpu::{self, NULL, Value, one_each, over, typed};
use crate::grid::Grid;
use crate::launch;
use crate::tensor::Buffer;

/// Slices of the weight gradient, about; fixed, so that the bits do not depend on the card.
const SLICES: usize = 528;

/// `Depthwise` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Depthwise {
    blocks: i32,
    c: i32,
    stride: i32,
    fine: [i32; 3],
    coarse: [i32; 3],
}
impl Value for Depthwise {}

fn shape(s: &Shape, grid: &Grid) -> Depthwise {
    let [fine, coarse] = [s.side, s.coarse()].map(|v| v.map(|v| v as i32));
    Depthwise { blocks: grid.blocks.len() as i32, c: s.c as i32, stride: s.stride as i32, fine, coarse }
}

/// Down or up.
pub fn apply(
    s: &Shape,
    grid: &Grid,
    up: bool,
    x: &Buffer,
    weight: &Buffer,
    bias: Option<&Buffer>,
    y: &Buffer,
) -> Result<()> {
    let (kernel, bias) =
        (typed(if up { "depthwise_up" } else { "depthwise_down" }, x.dtype), bias.map_or(NULL, |b| b.device()));
    let (x, neighbours, weight, to) = (x.device(), grid.neighbours_on_card(), weight.device(), y.device_mut());
    launch!(kernel, over(y.len), 256, 0, shape(s, grid), x, neighbours, weight, bias, to)
}

/// Gradient of the weight.
pub fn grad_weight(s: &Shape, grid: &Grid, fine: &Buffer, coarse: &Buffer, dw: &Buffer) -> Result<()> {
    let (rows, lines, fine_type) = (coarse.len / s.c, s.c.div_ceil(32), fine.dtype);
    let slice = rows.div_ceil((SLICES / lines).max(1)).max(64);
    let slices = rows.div_ceil(slice);
    let partial = gpu::scratch::<f32>(slices * 27 * s.c);
    let (blocks, fine, coarse, near) = ([slices, lines, 27], fine.device(), coarse.device(), grid.neighbours_on_card());
    let (shape, slice, kernel) = (shape(s, grid), slice as i32, typed("depthwise_weight", fine_type));
    launch!(kernel, blocks, 256, 1024, shape, fine, coarse, near, slice, partial.at())?;
    let (slices, c) = (slices as i32, s.c as i32);
    launch!("depthwise_weight_fold", one_each(27 * s.c), 256, 0, partial.at(), slices, c, dw.device_mut())
}
