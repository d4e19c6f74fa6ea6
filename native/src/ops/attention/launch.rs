//! The kernels of `kernel.cu` as the contract asks for them: bf16, heads of at most 80 channels.

use super::Shape;
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, At, Piece, Value};
use crate::launch;
use crate::tensor::Buffer;

const TILE: usize = 64;
const STRETCH: usize = 32;

/// `Attention` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attention {
    heads: i32,
    width: i32,
    scale: f32,
}
impl Value for Attention {}

/// Whether the kernels take this shape; the host computes the others.
pub fn offered(s: &Shape, dtype: Dtype) -> bool {
    dtype == Dtype::Bf16 && s.width <= 80
}

/// A shape as the kernels take it: columns of shared memory, tiles on the card and their number.
struct Plan {
    shape: Attention,
    columns: usize,
    tiles: Piece,
    grid: [usize; 3],
}

impl Plan {
    fn new(s: &Shape) -> Plan {
        let mut tiles = Vec::new();
        for span in s.starts.windows(2) {
            for first in (span[0]..span[1]).step_by(TILE) {
                tiles.extend([first, span[0], span[1]].map(|v| v as i32));
            }
        }
        let shape = Attention { heads: s.heads as i32, width: s.width as i32, scale: 1.0 / (s.width as f32).sqrt() };
        let columns = [32, 64, 80].into_iter().find(|&c| s.width <= c).expect("checked by `offered`");
        Plan { shape, columns, tiles: gpu::upload(&tiles), grid: [tiles.len() / 3, s.heads, 1] }
    }
    fn kernel(&self, name: &str) -> String {
        format!("{name}_{}", self.columns)
    }
    /// Bytes of `rows` rows of a head in shared memory.
    fn bytes(&self, rows: usize) -> usize {
        2 * rows * (self.columns + 8)
    }
    fn forward(&self, [q, k, v]: [&Buffer; 3], l: At, y: At) -> Result<()> {
        let (q, k, v) = (q.device(), k.device(), v.device());
        let shared = self.bytes(3 * TILE);
        launch!(self.kernel("attention"), self.grid, 128, shared, self.shape, self.tiles.at(), q, k, v, l, y)
    }
}

/// y and l; q, k, v.
pub fn forward(s: &Shape, inputs: [&Buffer; 3], l: &Buffer, y: &Buffer) -> Result<()> {
    Plan::new(s).forward(inputs, l.device_mut(), y.device_mut())
}

/// Gradients of q, k, v. y is computed again for the means of dy . y.
pub fn backward(s: &Shape, [q, k, v, dy]: [&Buffer; 4], l: &Buffer, [dq, dk, dv]: [&Buffer; 3]) -> Result<()> {
    let (plan, count) = (Plan::new(s), s.rows() * s.heads);
    let (y, again, means) = (gpu::scratch::<u16>(q.len), gpu::scratch::<f32>(count), gpu::scratch::<f32>(count));
    plan.forward([q, k, v], again.at(), y.at())?;
    let (warps, width) = ([count.div_ceil(8), 1, 1], s.width as i32);
    launch!("attention_means", warps, 256, 0, y.at(), dy.device(), count as i32, width, means.at())?;
    let (q, k, v, dy, l, tiles, grid) =
        (q.device(), k.device(), v.device(), dy.device(), l.device(), plan.tiles.at(), plan.grid);
    let (kernel, shared) = (plan.kernel("attention_grad_q"), plan.bytes(4 * TILE));
    launch!(kernel, grid, 128, shared, plan.shape, tiles, q, k, v, dy, l, means.at(), dq.device_mut())?;
    let (kernel, shared) = (plan.kernel("attention_grad_kv"), plan.bytes(2 * (TILE + STRETCH)) + 8 * STRETCH);
    let (dk, dv) = (dk.device_mut(), dv.device_mut());
    launch!(kernel, grid, 128, shared, plan.shape, tiles, q, k, v, dy, l, means.at(), dk, dv)
}
