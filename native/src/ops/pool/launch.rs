//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, Value, over, typed};
use crate::launch;
use crate::ops::norm;
use crate::tensor::Buffer;

/// `Halving` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Halving {
    blocks: i32,
    side: [i32; 3],
    c: i32,
}
impl Value for Halving {}

fn halving(blocks: u32, side: [usize; 3], c: usize) -> Halving {
    Halving { blocks: blocks as i32, side: side.map(|s| s as i32), c: c as i32 }
}

/// The mean of each 2x2x2 cube; `side` of y.
pub fn average(blocks: u32, side: [usize; 3], c: usize, x: &Buffer, y: &Buffer) -> Result<()> {
    let (kernel, shape) = (typed("pool_average", x.dtype), halving(blocks, side, c));
    launch!(kernel, over(y.len), 256, 0, shape, x.device(), y.device_mut())
}

/// An eighth of dy at each of the eight voxels; `side` of dy.
pub fn average_grad(blocks: u32, side: [usize; 3], c: usize, dy: &Buffer, dx: &Buffer) -> Result<()> {
    let (kernel, shape) = (typed("pool_average_grad", dy.dtype), halving(blocks, side, c));
    launch!(kernel, over(dy.len), 256, 0, shape, dy.device(), dx.device_mut())
}

/// Mean over the rows of each sample.
pub fn global(starts: Vec<usize>, c: usize, x: &Buffer, y: &Buffer) -> Result<()> {
    norm::launch::means(&norm::Shape { starts, c }, x, y.device_mut())
}

/// dy of the sample, divided by its rows, at each of them.
pub fn global_grad(starts: &[usize], c: usize, dy: &Buffer, dx: &Buffer) -> Result<()> {
    let on_card = gpu::upload(&starts.iter().map(|&s| s as i32).collect::<Vec<_>>());
    let grid = [over(dx.len)[0], starts.len() - 1, 1];
    let (kernel, dy, c, to) = (typed("pool_spread", dx.dtype), dy.device(), c as i32, dx.device_mut());
    launch!(kernel, grid, 256, 0, dy, on_card.at(), c, to)
}
