//! The kernels of `kernel.cu` as the contract asks for them: heads of at most 32 channels.

use super::Shape;
use crate::abi::Result;
use crate::gpu::{self, Piece, Value, typed};
use crate::launch;
use crate::tensor::Buffer;

const THREADS: usize = 128;
/// Bytes of two stretches of 64 rows, and of four times 16 rows with a gap.
const STRETCHES: usize = 2 * 64 * 32 * 4;
const TILES: usize = 4 * 16 * 33 * 4;
/// Slices of windows times heads, about: fixed, so that the bits do not depend on the card.
const SLICES: usize = 48;

/// `Windows` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Windows {
    windows: i32,
    tokens: i32,
    heads: i32,
    width: i32,
    edge: i32,
    regions: i32,
    scale: f32,
}
impl Value for Windows {}

/// Whether the kernels take this shape; the host computes the others.
pub fn offered(s: &Shape) -> bool {
    s.width <= 32
}

/// The shape as the kernels take it, the regions on the card, which must live through the launches, and the grid.
fn plan(s: &Shape) -> (Windows, Piece, [usize; 3]) {
    let [windows, tokens, heads, width, edge] = [s.windows, s.tokens, s.heads, s.width, s.edge].map(|v| v as i32);
    let regions: Vec<i32> = s.regions.iter().map(|&r| r as i32).collect();
    let scale = 1.0 / (s.width as f32).sqrt();
    let shape = Windows { windows, tokens, heads, width, edge, regions: regions.len() as i32, scale };
    (shape, gpu::upload(&regions), [s.windows, s.heads, s.tokens.div_ceil(THREADS)])
}

/// y.
pub fn forward(s: &Shape, qkv: &Buffer, table: &Buffer, y: &Buffer) -> Result<()> {
    let (shape, regions, grid) = plan(s);
    let (kernel, qkv, to) = (typed("window_attention", qkv.dtype), qkv.device(), y.device_mut());
    launch!(kernel, grid, THREADS as u32, STRETCHES, shape, qkv, table.device(), regions.at(), to)
}

/// dqkv and dtable.
pub fn backward(s: &Shape, [qkv, table, dy]: [&Buffer; 3], dqkv: &Buffer, dtable: &Buffer) -> Result<()> {
    let ((shape, regions, grid), dtype, threads) = (plan(s), qkv.dtype, THREADS as u32);
    let rows = s.windows * s.heads * s.tokens;
    let (l, means) = (gpu::scratch::<f32>(rows), gpu::scratch::<f32>(rows));
    let (qkv, table, near, dy, to) = (qkv.device(), table.device(), regions.at(), dy.device(), dqkv.device_mut());
    let kernel = typed("window_attention_grad_q", dtype);
    launch!(kernel, grid, threads, STRETCHES, shape, qkv, table, near, dy, l.at(), means.at(), to)?;
    let kernel = typed("window_attention_grad_kv", dtype);
    launch!(kernel, grid, threads, STRETCHES, shape, qkv, table, near, dy, l.at(), means.at(), to)?;
    let slice = s.windows.div_ceil((SLICES / s.heads).max(1));
    let slices = s.windows.div_ceil(slice);
    let pairs = gpu::scratch::<f32>(slices * s.heads * s.tokens * s.tokens);
    let (kernel, grid) = (typed("window_attention_pairs", dtype), [s.tokens.div_ceil(16).pow(2), s.heads, slices]);
    let (slice, l, means) = (slice as i32, l.at(), means.at());
    launch!(kernel, grid, 256, TILES, shape, slice, qkv, table, near, dy, l, means, pairs.at())?;
    let (warps, slices, to) = ([(s.entries() * s.heads).div_ceil(8), 1, 1], slices as i32, dtable.device_mut());
    launch!("window_attention_table", warps, 256, 0, shape, slices, pairs.at(), to)
}
