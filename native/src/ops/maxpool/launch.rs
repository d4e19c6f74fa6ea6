//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{Value, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// `Pool` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pool {
    planes: i32,
    side: [i32; 2],
    c: i32,
}
impl Value for Pool {}

fn shape([planes, sy, sx, c]: [usize; 4]) -> Pool {
    Pool { planes: planes as i32, side: [sy as i32, sx as i32], c: c as i32 }
}

/// Maximum of 2x2x2 cubes; planes, side, channels of y.
pub fn largest(sizes: [usize; 4], x: &Buffer, y: &Buffer) -> Result<()> {
    launch!(typed("max_pool", x.dtype), over(y.len), 256, 0, shape(sizes), x.device(), y.device_mut())
}

/// dy at the first of the largest values.
pub fn largest_grad(sizes: [usize; 4], dy: &Buffer, x: &Buffer, y: &Buffer, dx: &Buffer) -> Result<()> {
    let (kernel, dy, to) = (typed("max_pool_grad", x.dtype), dy.device(), dx.device_mut());
    launch!(kernel, over(y.len), 256, 0, shape(sizes), dy, x.device(), y.device(), to)
}
