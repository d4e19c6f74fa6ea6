//! The kernels of `kernel.cu` as the contract asks for them.

use super::Shape;
use crate::abi::Result;
use crate::gpu::{self, Piece, Value, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// `Lattice` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Lattice {
    rows: i32,
    side: [i32; 3],
    c: i32,
    count: i32,
    inner: i32,
}
impl Value for Lattice {}

/// The shape as the kernels take it, and the offsets on the card, which must live through the launch.
fn plan(s: &Shape) -> (Lattice, Piece) {
    let offsets: Vec<i32> = s.offsets.iter().map(|&o| o as i32).collect();
    let (side, c, count) = (s.side.map(|v| v as i32), s.c as i32, offsets.len() as i32);
    (Lattice { rows: s.rows as i32, side, c, count, inner: s.inner as i32 }, gpu::upload(&offsets))
}

/// Sub-lattices beside each other.
pub fn forward(s: &Shape, x: &Buffer, y: &Buffer) -> Result<()> {
    let (shape, offsets) = plan(s);
    launch!(typed("lattice", x.dtype), over(y.len), 256, 0, shape, offsets.at(), x.device(), y.device_mut())
}

/// The sum of what was read.
pub fn gradient(s: &Shape, dy: &Buffer, dx: &Buffer) -> Result<()> {
    let (shape, offsets) = plan(s);
    launch!(typed("lattice_grad", dy.dtype), over(dx.len), 256, 0, shape, offsets.at(), dy.device(), dx.device_mut())
}
