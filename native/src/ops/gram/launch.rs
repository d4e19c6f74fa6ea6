//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::launch;
use crate::tensor::Buffer;

/// D per sample.
pub fn difference(p: &Buffer, z: &Buffer, [n, positions, c]: [usize; 3], d: &Buffer) -> Result<()> {
    let (grid, positions, width) = ([(c * c).div_ceil(256), n, 1], positions as i32, c as i32);
    launch!("gram_difference", grid, 256, 0, p.device(), z.device(), positions, width, d.device_mut())
}

/// Gradient of p.
pub fn gradient(p: &Buffer, dd: &Buffer, [n, positions, c]: [usize; 3], dp: &Buffer) -> Result<()> {
    let (grid, positions, width) = ([(positions * c).div_ceil(256), n, 1], positions as i32, c as i32);
    launch!("gram_gradient", grid, 256, 0, p.device(), dd.device(), positions, width, dp.device_mut())
}
