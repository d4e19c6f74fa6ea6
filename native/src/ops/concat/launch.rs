//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, At, Value, over, typed};
use crate::launch;
use crate::tensor::Buffer;

/// `Columns` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Columns {
    rows: i64,
    count: i32,
    width: i32,
    first: i32,
    to_width: i32,
    to_first: i32,
}
impl Value for Columns {}

/// `count` columns from `(tensor, width, first)` to such.
fn columns(rows: usize, count: usize, from: (&Buffer, usize, usize), to: (&Buffer, usize, usize)) -> Result<()> {
    let [width, first, to_width, to_first] = [from.1, from.2, to.1, to.2].map(|v| v as i32);
    let shape = Columns { rows: rows as i64, count: count as i32, width, first, to_width, to_first };
    let (kernel, grid) = (typed("concat_columns", from.0.dtype), over(rows * count));
    launch!(kernel, grid, 256, 0, shape, from.0.device(), to.0.device_mut())
}

/// `[a | b]`.
pub fn concat(a: &Buffer, b: &Buffer, rows: usize, [ca, cb]: [usize; 2], y: &Buffer) -> Result<()> {
    columns(rows, ca, (a, ca, 0), (y, ca + cb, 0))?;
    columns(rows, cb, (b, cb, 0), (y, ca + cb, ca))
}

/// `count` columns from `start` on of `[rows][c]`.
pub fn take_columns(x: &Buffer, rows: usize, c: usize, start: usize, count: usize, y: &Buffer) -> Result<()> {
    columns(rows, count, (x, c, start), (y, count, 0))
}

/// Rows from `start` on, as many as y has.
pub fn take_rows(x: &Buffer, start: usize, c: usize, y: &Buffer) -> Result<()> {
    let bytes = x.dtype.bytes();
    gpu::copy(At(x.device().0 + (start * c * bytes) as u64), y.device_mut(), y.len * bytes)
}

/// dy in its rows, zero elsewhere.
pub fn put_rows(dy: &Buffer, start: usize, c: usize, dx: &Buffer) -> Result<()> {
    let (bytes, to) = (dy.dtype.bytes(), dx.device_mut());
    gpu::clear(to, dx.len * bytes)?;
    gpu::copy(dy.device(), At(to.0 + (start * c * bytes) as u64), dy.len * bytes)
}
