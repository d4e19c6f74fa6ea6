//! Separable resampling: one small matrix per axis. Alignment (ROI align) and adaptive pooling, and their gradients,
//! are this op with their own matrices.
//!
//! Contract. x `[n][iz][iy][ix][c]`, y `[n][oz][oy][ox][c]`;
//! y[n,p,q,r,:] = sum over i,j,k of A_z[n][p,i] A_y[n][q,j] A_x[n][r,k] x[n,i,j,k,:].
//! `weights` holds A_z `[n][oz][iz]`, then A_y `[n][oy][iy]`, then A_x `[n][ox][ix]`. The gradient of x is the same op
//! with transposed matrices. Rows may be mostly zeros: only the stretch from first to last non-zero is read.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::element::Dtype;
use crate::{gpu, queue, tensor};

/// Sizes of one resampling.
#[derive(Clone, Copy)]
pub struct Shape {
    pub n: usize,
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub c: usize,
}

impl Shape {
    pub fn weights_len(&self) -> usize {
        self.n * (0..3).map(|d| self.input[d] * self.output[d]).sum::<usize>()
    }
    /// Where the matrices of axis `d` begin in `weights`.
    pub fn axis_start(&self, d: usize) -> usize {
        self.n * (0..d).map(|d| self.input[d] * self.output[d]).sum::<usize>()
    }
    pub fn input_len(&self) -> usize {
        self.n * self.input.iter().product::<usize>() * self.c
    }
    pub fn output_len(&self) -> usize {
        self.n * self.output.iter().product::<usize>() * self.c
    }
}

exports! {
    /// y = (A_z x A_y x A_x) x per sample; iz..: side of x, oz..: side of y. dtype: of y.
    fn vx_separable(x: u32, weights: slice[f32], n: u32, iz: u32, iy: u32, ix: u32, oz: u32, oy: u32, ox: u32, c: u32, dtype: u32) {
        let side = |s: [u32; 3]| s.map(|v| v as usize);
        let s = Shape { n: n as usize, input: side([iz, iy, ix]), output: side([oz, oy, ox]), c: c as usize };
        if s.input_len() == 0 || s.output_len() == 0 {
            return Err(format!("resampling: {:?} to {:?} of {n} x {c} holds a 0", s.input, s.output));
        }
        if weights.len() != s.weights_len() {
            return Err(format!("resampling: {} weights, {} are needed", weights.len(), s.weights_len()));
        }
        let x = tensor::either(x, s.input_len(), "resampling input")?;
        let (y, handle) = tensor::make_as(s.output_len(), Dtype::parse(dtype)?);
        let weights = weights.to_vec();
        queue::enqueue(move || {
            if gpu::active() {
                return launch::resample(&s, &weights, &x, &y);
            }
            by_dtype!(x.dtype, X => by_dtype!(y.dtype, Y => {
                cpu::resample(&s, &weights, x.of::<X>(), y.of_mut::<Y>())
            }));
            Ok(())
        });
        Ok(handle)
    }
}
