//! The kernels of `kernel.cu` as the contract asks for them.

use super::Shape;
use crate::abi::Result;
use crate::gpu::{self, At, NULL, Piece, Slices, Value, over, typed};
use crate::launch;
use crate::tensor::{Buffer, Tensor};

/// `Volumes` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Volumes {
    samples: i32,
    dims: [i32; 3],
    side: [i32; 3],
    c: i32,
    cells: At,
}
impl Value for Volumes {}

/// The shape as the kernels take it; the piece must live through the launch.
fn volumes(s: &Shape) -> (Volumes, Piece) {
    let cells = gpu::upload(&s.cells);
    let [dims, side] = [s.grid.dims, s.side].map(|v| v.map(|v| v as i32));
    (Volumes { samples: s.grid.samples as i32, dims, side, c: s.c as i32, cells: cells.at() }, cells)
}

/// blocks -> whole volumes.
pub fn scatter(s: &Shape, x: &Buffer, token: &Option<Tensor>, y: &Buffer) -> Result<()> {
    let (shape, _cells) = volumes(s);
    let (kernel, token, to) =
        (typed("densify_scatter", x.dtype), token.as_ref().map_or(NULL, |t| t.device()), y.device_mut());
    launch!(kernel, over(y.len), 256, 0, shape, x.device(), token, to)
}

/// whole volumes -> blocks.
pub fn gather(s: &Shape, x: &Buffer, y: &Buffer) -> Result<()> {
    let (shape, _cells) = volumes(s);
    launch!(typed("densify_gather", x.dtype), over(x.len), 256, 0, shape, x.device(), y.device_mut())
}

/// Sum over the voxels not listed.
pub fn hidden_sum(s: &Shape, dy: &Buffer, out: &Buffer) -> Result<()> {
    let (shape, _cells) = volumes(s);
    let (c, slices) = (s.c as i32, Slices::new(dy.len / s.c, s.c, dy.dtype, 1, 1));
    let (partial, kernel) = (gpu::scratch::<f32>(slices.count * s.c), typed("densify_token", dy.dtype));
    launch!(kernel, slices.grid(), 256, slices.shared, shape, dy.device(), slices.rows, partial.at())?;
    let count = slices.count as i32;
    launch!("densify_token_fold", gpu::fold(s.c), 256, 0, partial.at(), count, c, out.device_mut())
}
