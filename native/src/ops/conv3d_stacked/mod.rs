//! 3x3x3 convolutions of few channels on Hopper's wgmma: the contract of `conv3d`, on the GPU alone.
//!
//! Emulated, not tried on a card yet. So it is off until `vx_conv3d_stacked`, by which `deno task gpu-check` compares and
//! times it beside the kernel of `conv3d`.

use super::conv3d::Shape;
use super::conv3d::launch::place;
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, Value, over};
use crate::grid::Grid;
use crate::tensor::Buffer;
use crate::{launch, queue};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Output voxels of a tile along y and x, voxels of a staged plane, columns of the weights: as in kernel.cu.
const TILE: [usize; 2] = [8, 16];
const PLANE: usize = (TILE[0] + 2) * (TILE[1] + 2);
const COLUMNS: usize = 96;

/// `Stacked` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stacked {
    blocks: i32,
    side: [i32; 3],
    c_in: i32,
    c_out: i32,
}
impl Value for Stacked {}

static ON: AtomicBool = AtomicBool::new(false);

exports! {
    /// Whether convolutions that follow may use wgmma. 1: the GPU in use has it.
    fn vx_conv3d_stacked(on: bool) {
        let able = gpu::card().hopper;
        queue::enqueue(move || { ON.store(on && able, Relaxed); Ok(()) });
        Ok(able as u32 as f64)
    }
}

/// Whether convolutions may use wgmma.
pub fn on() -> bool {
    ON.load(Relaxed)
}

/// Whether the kernel computes a convolution from `c[0]` to `c[1]` channels.
pub fn takes(s: &Shape, c: [usize; 2], dtype: Dtype) -> bool {
    let fits = s.side[1].is_multiple_of(TILE[0]) && s.side[2].is_multiple_of(TILE[1]);
    let few = matches!(c[0], 32 | 64) && c[1].is_multiple_of(2);
    on() && (s.kernel, s.stride) == (3, 1) && dtype == Dtype::Bf16 && fits && few
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
    let groups = c[1].div_ceil(32);
    let values = groups * 9 * COLUMNS * c[0];
    let packed = gpu::scratch::<u16>(values);
    let [c_in, c_out] = c.map(|v| v as i32);
    launch!("conv3d_stacked_pack", over(values), 256, 0, w.device(), c_in, c_out, turned as i32, packed.at())?;
    let shape = Stacked { blocks: grid.blocks.len() as i32, side: s.side.map(|v| v as i32), c_in, c_out };
    let tiles = grid.blocks.len() * (s.side[1] / TILE[0]) * (s.side[2] / TILE[1]);
    let shared = (9 * COLUMNS + 2 * PLANE) * c[0] * 2;
    let (from, neighbours, to) = (x.device(), grid.neighbours_on_card(), y.device_mut());
    launch!("conv3d_stacked", [tiles, groups, 1], 256, shared, shape, from, neighbours, packed.at(), place(bias), to)
}
