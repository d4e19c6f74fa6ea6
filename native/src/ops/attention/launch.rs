//! The kernels of `kernel.cu` as the contract asks for them: bf16 and heads of at most 80 channels on tensor cores, f32 and
//! heads of at most 128 without.

use super::Shape;
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, Piece, Value};
use crate::launch;
use crate::tensor::Buffer;

const TILE: usize = 64;
const STRETCH: usize = 32;
/// Rows of a block, and of the other side at a time, in f32.
const ROWS: usize = 8;
const LANES: usize = 32;

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
    s.width <= if dtype == Dtype::Bf16 { 80 } else { 128 }
}

/// A shape as the kernels take it: columns of shared memory on tensor cores, tiles on the card and their number.
struct Plan {
    shape: Attention,
    columns: usize,
    tiles: Piece,
    grid: [usize; 3],
}

impl Plan {
    /// Tiles of `rows` rows of one side, each with its sample's rows of the other.
    fn new(s: &Shape, own: &[usize], other: &[usize], rows: usize) -> Plan {
        let mut tiles = Vec::new();
        for (own, other) in own.windows(2).zip(other.windows(2)) {
            for first in (own[0]..own[1]).step_by(rows) {
                tiles.extend([first, own[1], other[0], other[1]].map(|v| v as i32));
            }
        }
        let shape = Attention { heads: s.heads as i32, width: s.width as i32, scale: 1.0 / (s.width as f32).sqrt() };
        let columns = [32, 64].into_iter().find(|&c| s.width <= c).unwrap_or(80);
        Plan { shape, columns, tiles: gpu::upload(&tiles), grid: [tiles.len() / 4, s.heads, 1] }
    }
    fn kernel(&self, name: &str) -> String {
        format!("{name}_{}", self.columns)
    }
    /// Bytes of `rows` rows of a head in shared memory.
    fn bytes(&self, rows: usize) -> usize {
        2 * rows * (self.columns + 8)
    }
}

/// Bytes of `rows` rows of a head in f32, and `sets` of numbers for all pairs of the rows of a block and the other side.
fn bytes_f32(s: &Shape, rows: usize, sets: usize) -> usize {
    4 * (rows * (s.width | 1) + sets * ROWS * LANES)
}

/// y and l; q, k, v.
pub fn forward(s: &Shape, inputs: [&Buffer; 3], l: &Buffer, y: &Buffer) -> Result<()> {
    let ([q, k, v], l, y) = (inputs.map(|x| x.device()), l.device_mut(), y.device_mut());
    if inputs[0].dtype == Dtype::Bf16 {
        let plan = Plan::new(s, &s.queries, &s.keys, TILE);
        let (kernel, shared) = (plan.kernel("attention"), plan.bytes(3 * TILE));
        return launch!(kernel, plan.grid, 128, shared, plan.shape, plan.tiles.at(), q, k, v, l, y);
    }
    let (plan, shared) = (Plan::new(s, &s.queries, &s.keys, ROWS), bytes_f32(s, ROWS + 2 * LANES, 1));
    launch!("attention_f32", plan.grid, 256, shared, plan.shape, plan.tiles.at(), q, k, v, l, y)
}

/// As `backward`, in f32.
fn backward_f32(s: &Shape, inputs: [&Buffer; 4], l: &Buffer, [dq, dk, dv]: [&Buffer; 3]) -> Result<()> {
    let (plan, means) = (Plan::new(s, &s.queries, &s.keys, ROWS), gpu::scratch::<f32>(s.query_rows() * s.heads));
    let ([q, k, v, dy], l, rows, means) = (inputs.map(|x| x.device()), l.device(), 2 * (ROWS + LANES), means.at());
    let (tiles, shared, dq) = (plan.tiles.at(), bytes_f32(s, rows, 1), dq.device_mut());
    launch!("attention_grad_q_f32", plan.grid, 256, shared, plan.shape, tiles, q, k, v, dy, l, means, dq)?;
    let plan = Plan::new(s, &s.keys, &s.queries, ROWS);
    let (tiles, shared, dk, dv) = (plan.tiles.at(), bytes_f32(s, rows, 2), dk.device_mut(), dv.device_mut());
    launch!("attention_grad_kv_f32", plan.grid, 256, shared, plan.shape, tiles, q, k, v, dy, l, means, dk, dv)
}

/// Gradients of q, k, v.
pub fn backward(s: &Shape, [q, k, v, y, dy]: [&Buffer; 5], l: &Buffer, [dq, dk, dv]: [&Buffer; 3]) -> Result<()> {
    if q.dtype == Dtype::F32 {
        return backward_f32(s, [q, k, v, dy], l, [dq, dk, dv]);
    }
    let (plan, count) = (Plan::new(s, &s.queries, &s.keys, TILE), s.query_rows() * s.heads);
    let means = gpu::scratch::<f32>(count);
    let (warps, width) = ([count.div_ceil(8), 1, 1], s.width as i32);
    launch!("attention_means", warps, 256, 0, y.device(), dy.device(), count as i32, width, means.at())?;
    let (q, k, v, dy, l) = (q.device(), k.device(), v.device(), dy.device(), l.device());
    let (kernel, tiles, shared) = (plan.kernel("attention_grad_q"), plan.tiles.at(), plan.bytes(4 * TILE));
    launch!(kernel, plan.grid, 128, shared, plan.shape, tiles, q, k, v, dy, l, means.at(), dq.device_mut())?;
    let plan = Plan::new(s, &s.keys, &s.queries, TILE);
    let (kernel, tiles) = (plan.kernel("attention_grad_kv"), plan.tiles.at());
    let (shared, dk, dv) = (plan.bytes(2 * (TILE + STRETCH)) + 8 * STRETCH, dk.device_mut(), dv.device_mut());
    launch!(kernel, plan.grid, 128, shared, plan.shape, tiles, q, k, v, dy, l, means.at(), dk, dv)
}
