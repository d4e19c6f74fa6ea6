//! The kernels of `kernel.cu` as the contract asks for them.

use crate::abi::Result;
use crate::gpu::{self, Piece};
use crate::launch;
use crate::tensor::Buffer;

/// S of student and teacher.
pub fn similarity(student: &Buffer, teacher: &Buffer, n: usize, temperature: f32, s: &Buffer) -> Result<()> {
    let (grid, c, s) = ([(4 * n * n).div_ceil(8), 1, 1], (student.len / n) as i32, s.device_mut());
    launch!("ntxent_similarity", grid, 256, 0, student.device(), teacher.device(), n as i32, c, temperature, s)
}

/// logsumexp of each row of S.
fn rows(s: &Buffer, n: usize) -> Result<Piece> {
    let rows = gpu::scratch::<f32>(2 * n);
    launch!("ntxent_rows", [(2 * n).div_ceil(32), 1, 1], 32, 0, s.device(), n as i32, rows.at())?;
    Ok(rows)
}

/// The loss from S.
pub fn loss(s: &Buffer, n: usize, y: &Buffer) -> Result<()> {
    launch!("ntxent_loss", [1; 3], 32, 0, s.device(), rows(s, n)?.at(), n as i32, y.device_mut())
}

/// Gradient of the student; dy, S, student, teacher.
pub fn gradient(
    [dy, s, student, teacher]: [&Buffer; 4],
    n: usize,
    c: usize,
    temperature: f32,
    ds: &Buffer,
) -> Result<()> {
    let (rows, grid, out) = (rows(s, n)?, [n, c.div_ceil(256), 1], ds.device_mut());
    let (dy, s, student, teacher, n, c) =
        (dy.device(), s.device(), student.device(), teacher.device(), n as i32, c as i32);
    launch!("ntxent_grad", grid, 256, 0, dy, s, rows.at(), student, teacher, n, c, temperature, out)
}

/// Share of the rows of S whose most similar row is the positive.
pub fn accuracy(s: &Buffer, n: usize, y: &Buffer) -> Result<()> {
    launch!("ntxent_accuracy", [1; 3], 256, 1024, s.device(), n as i32, y.device_mut())
}
