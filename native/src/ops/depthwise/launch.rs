//! The kernels of `kernel.cu` as the contract asks for them.

use super::Shape;
use crate::abi::Result;
use crate::gpu::{self, NULL, Slices, Value, one_each, over, typed};
use crate::grid::Grid;
use crate::launch;
use crate::tensor::Buffer;

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
    let (packed, c, bias) = (gpu::scratch::<f32>(27 * s.c), s.c as i32, bias.map_or(NULL, |b| b.device()));
    launch!("depthwise_pack", one_each(27 * s.c), 256, 0, weight.device(), c, packed.at())?;
    let (from, near, weight, to) = (x.device(), grid.neighbours_on_card(), packed.at(), y.device_mut());
    if s.stride == 1 {
        let (kernel, turned) = (typed("depthwise_along", x.dtype), up as i32);
        return launch!(kernel, over(y.len), 256, 0, shape(s, grid), turned, from, near, weight, bias, to);
    }
    let kernel = typed(if up { "depthwise_up" } else { "depthwise_down" }, x.dtype);
    launch!(kernel, over(y.len), 256, 0, shape(s, grid), from, near, weight, bias, to)
}

/// Gradient of the weight: by lines along x with stride 1, else by voxels and one tap at a time.
pub fn grad_weight(s: &Shape, grid: &Grid, fine: &Buffer, coarse: &Buffer, dw: &Buffer) -> Result<()> {
    let (name, taps, length) = match s.stride {
        1 => ("depthwise_weight_lines", 3, s.side[2]),
        _ => ("depthwise_weight", 27, 1),
    };
    let slices = Slices::new(coarse.len / s.c / length, s.c, fine.dtype, if s.stride == 1 { 3 } else { 1 }, 1);
    let partial = gpu::scratch::<f32>(slices.count * 27 * s.c);
    let (kernel, blocks) = (typed(name, fine.dtype), [slices.count, taps, slices.lines]);
    let (from, dy, near) = (fine.device(), coarse.device(), grid.neighbours_on_card());
    launch!(kernel, blocks, 256, slices.shared, shape(s, grid), from, dy, near, slices.rows, partial.at())?;
    let (count, c) = (slices.count as i32, s.c as i32);
    launch!("depthwise_weight_fold", gpu::fold(27 * s.c), 256, 0, partial.at(), count, c, dw.device_mut())
}
