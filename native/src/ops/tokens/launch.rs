//! The kernels of `kernel.cu` as the contract asks for them.

use super::{Shape, turns};
use crate::abi::Result;
use crate::gpu::{self, Piece, Value, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// `Tokens` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tokens {
    rows: i32,
    side: [i32; 3],
    dims: [i32; 3],
    samples: i32,
}
impl Value for Tokens {}

/// The shape as the kernels take it, and the blocks on the card, which must live through the launch.
fn tokens(s: &Shape) -> (Tokens, Piece) {
    let [side, dims] = [s.side, s.dims()].map(|v| v.map(|v| v as i32));
    let shape = Tokens { rows: s.rows() as i32, side, dims, samples: s.grid.samples as i32 };
    (shape, gpu::upload(s.grid.blocks.as_flattened()))
}

/// Volumes to rows.
pub fn patchify(s: &Shape, token: usize, c: usize, x: &Buffer, y: &Buffer) -> Result<()> {
    let ((shape, blocks), kernel) = (tokens(s), typed("patchify", x.dtype));
    launch!(kernel, over(y.len), 256, 0, shape, blocks.at(), token as i32, c as i32, x.device(), y.device_mut())
}

/// Rows to volumes, zero where no token is listed.
pub fn patchify_grad(s: &Shape, token: usize, c: usize, dy: &Buffer, dx: &Buffer) -> Result<()> {
    let ((shape, blocks), kernel, to) = (tokens(s), typed("patchify_grad", dy.dtype), dx.device_mut());
    gpu::clear(to, dx.len * dx.dtype.bytes())?;
    launch!(kernel, over(dy.len), 256, 0, shape, blocks.at(), token as i32, c as i32, dy.device(), to)
}

/// x + table[token].
pub fn positions(s: &Shape, c: usize, x: &Buffer, table: &Buffer, y: &Buffer) -> Result<()> {
    let ((shape, blocks), kernel) = (tokens(s), typed("positions", x.dtype));
    let (x, table, to) = (x.device(), table.device(), y.device_mut());
    launch!(kernel, over(y.len), 256, 0, shape, blocks.at(), c as i32, x, table, to)
}

/// Gradient of the table.
pub fn positions_grad(s: &Shape, c: usize, dy: &Buffer, dt: &Buffer) -> Result<()> {
    let mut rows_of = vec![-1i32; s.grid.samples * s.cells()];
    for row in 0..s.rows() {
        rows_of[s.at(row).0 * s.cells() + s.cell(row)] = row as i32;
    }
    let ((shape, _blocks), rows_of, kernel) = (tokens(s), gpu::upload(&rows_of), typed("positions_grad", dy.dtype));
    launch!(kernel, over(dt.len), 256, 0, shape, rows_of.at(), c as i32, dy.device(), dt.device_mut())
}

/// Rotary embedding; sign -1 turns back.
pub fn rope(s: &Shape, heads: usize, pairs: usize, sign: f64, x: &Buffer, y: &Buffer) -> Result<()> {
    let table: Vec<f32> = turns(s.dims(), pairs, sign).iter().flatten().flat_map(|&(cos, sin)| [cos, sin]).collect();
    let ((shape, blocks), table, kernel) = (tokens(s), gpu::upload(&table), typed("rope", x.dtype));
    let (pairs, heads, x, to) = (pairs as i32, heads as i32, x.device(), y.device_mut());
    launch!(kernel, over(y.len / 2), 256, 0, shape, blocks.at(), table.at(), pairs, heads, 1f32, x, to)
}
