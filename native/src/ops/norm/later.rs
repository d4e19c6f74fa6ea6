//! What a norm would write, while the convolutions that read it can make it from the input of the norm as they load: on the GPU
//! alone. The tensor has no memory then; whoever else reads it gets it written.
//!
//! Emulated, not tried on a card yet. So it is off until `vx_norm_on_load`, by which `deno task gpu-check` compares and times it.

use super::{Shape, launch};
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, At, NULL, Piece, Value};
use crate::grid::Grid;
use crate::tensor::{Buffer, Tensor};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub static ON: AtomicBool = AtomicBool::new(false);

/// The input of a norm without residual, and what is made of it.
pub struct Later {
    pub shape: Shape,
    pub x: Tensor,
    pub statistics: Tensor,
    pub gamma: Option<Tensor>,
    pub beta: Option<Tensor>,
    pub slope: f32,
}

/// `Normed` of ops/conv3d/kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Normed {
    statistics: At,
    gamma: At,
    beta: At,
    starts: At,
    samples: i32,
    slope: f32,
}
impl Value for Normed {}

/// Whether a norm of these may wait for its reader.
pub fn takes(s: &Shape, dtype: Dtype) -> bool {
    ON.load(Relaxed) && dtype == Dtype::Bf16 && s.c.is_multiple_of(8)
}

impl Later {
    /// Writes the values.
    pub fn fill(&self, to: At) -> Result<()> {
        let affine = [&self.gamma, &self.beta, &None];
        launch::apply(&self.shape, &self.x, &self.statistics, affine, self.slope, to)
    }
    /// Whether its samples are those of a grid with blocks of `voxels`, and tiles of `parts` blocks hold one sample each.
    pub fn fits(&self, grid: &Grid, voxels: usize, parts: usize) -> bool {
        let starts = grid.starts.iter().map(|s| s * voxels);
        let apart = grid.starts[..grid.starts.len() - 1].iter().all(|s| s % parts == 0);
        apart && starts.eq(self.shape.starts.iter().copied())
    }
    /// As the kernels take it, with a table that must live through the launch.
    pub fn normed(&self, grid: &Grid) -> (Normed, Piece) {
        let starts = gpu::upload(&grid.starts.iter().map(|&s| s as i32).collect::<Vec<_>>());
        let place = |t: &Option<Tensor>| t.as_ref().map_or(NULL, |t: &Tensor| Buffer::device(t));
        let (gamma, beta, samples) = (place(&self.gamma), place(&self.beta), self.shape.samples() as i32);
        let statistics = self.statistics.device();
        (Normed { statistics, gamma, beta, starts: starts.at(), samples, slope: self.slope }, starts)
    }
}
