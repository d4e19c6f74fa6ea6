//! 3x3x3 convolutions of many channels on Hopper's wgmma: the contract of `conv3d`, on the GPU alone. On and off with
//! `conv3d_stacked`.

use super::conv3d::Shape;
use super::conv3d::launch::place;
use super::conv3d_stacked;
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, Value, over};
use crate::grid::Grid;
use crate::launch;
use crate::tensor::Buffer;

/// Voxels and output channels of a tile, summed channels of a step: as in kernel.cu.
const ROWS: usize = 128;
const COLUMNS: usize = 128;
const DEPTH: usize = 64;
/// Bytes of three buffers of both factors.
const BUFFERS: usize = 3 * (ROWS * 16 + 64 + COLUMNS * 16) * DEPTH / 8;
/// Tiles below which the other kernel, whose tiles are smaller, fills a card better.
const FEWEST: usize = 16;

/// `Wide` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Wide {
    blocks: i32,
    side: [i32; 3],
    c_in: i32,
    c_out: i32,
}
impl Value for Wide {}

fn tiles(rows: usize, c_out: usize) -> [usize; 3] {
    [rows.div_ceil(ROWS), c_out.div_ceil(COLUMNS), 1]
}

fn rows(s: &Shape, grid: &Grid) -> usize {
    grid.blocks.len() * s.side.iter().product::<usize>()
}

/// Whether the kernel computes a convolution from `c[0]` to `c[1]` channels.
pub fn takes(s: &Shape, grid: &Grid, c: [usize; 2], dtype: Dtype) -> bool {
    let many = c[0] > 64 && c[0].is_multiple_of(DEPTH) && c[1] > 64 && c[1].is_multiple_of(2);
    let fills = tiles(rows(s, grid), c[1]).iter().product::<usize>() >= FEWEST;
    conv3d_stacked::on() && (s.kernel, s.stride) == (3, 1) && dtype == Dtype::Bf16 && many && fills
}

/// y = conv(x) + bias; turned: the gradient of x, with the weights of the forward pass.
#[allow(clippy::too_many_arguments)]
pub fn convolve(
    s: &Shape,
    grid: &Grid,
    c: [usize; 2],
    turned: bool,
    x: &Buffer,
    w: &Buffer,
    bias: Option<&Buffer>,
    y: &Buffer,
) -> Result<()> {
    let values = c[1].next_multiple_of(COLUMNS) * 27 * c[0];
    let packed = gpu::scratch::<u16>(values);
    let [c_in, c_out] = c.map(|v| v as i32);
    launch!("conv3d_wide_pack", over(values), 256, 0, w.device(), c_in, c_out, turned as i32, packed.at())?;
    let shape = Wide { blocks: grid.blocks.len() as i32, side: s.side.map(|v| v as i32), c_in, c_out };
    let (from, neighbours, to) = (x.device(), grid.neighbours_on_card(), y.device_mut());
    let (tiles, bias) = (tiles(rows(s, grid), c[1]), place(bias));
    launch!("conv3d_wide", tiles, 256, BUFFERS, shape, from, neighbours, packed.at(), bias, to)
}
