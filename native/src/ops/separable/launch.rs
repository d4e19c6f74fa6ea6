//! The kernels of `kernel.cu` as the contract asks for them.

use super::Shape;
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, Value, one_each, over};
use crate::launch;
use crate::tensor::Buffer;

/// `Resampling` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Resampling {
    n: i32,
    input: [i32; 3],
    output: [i32; 3],
    c: i32,
}
impl Value for Resampling {}

/// As `cpu::resample`.
pub fn resample(s: &Shape, weights: &[f32], x: &Buffer, y: &Buffer) -> Result<()> {
    let [input, output] = [s.input, s.output].map(|v| v.map(|v| v as i32));
    let shape = Resampling { n: s.n as i32, input, output, c: s.c as i32 };
    let rows = s.n * s.output.iter().sum::<usize>();
    let (weights, support) = (gpu::upload(weights), gpu::scratch::<[i32; 2]>(rows));
    launch!("separable_support", one_each(rows), 256, 0, shape, weights.at(), support.at())?;
    let kernel = match (x.dtype, y.dtype) {
        (Dtype::Bf16, Dtype::F32) => "separable_from_bf16",
        (Dtype::F32, Dtype::Bf16) => "separable_to_bf16",
        (Dtype::F32, Dtype::F32) => "separable_f32",
        (Dtype::Bf16, Dtype::Bf16) => "separable_bf16",
    };
    let (grid, weights, support) = (over(y.len), weights.at(), support.at());
    launch!(kernel, grid, 256, 0, shape, weights, support, x.device(), y.device_mut())
}
