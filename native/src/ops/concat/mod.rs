//! Matrices put together and taken apart.
//!
//! Contract. concat: a `[rows][ca]`, b `[rows][cb]` -> `[rows][ca + cb]`. columns: `count` columns from `start`.
//! rows: `count` rows from `start`; its gradient is zero in the other rows.

pub mod launch;

use crate::element::Element;
use crate::{gpu, queue, tensor};
use rayon::prelude::*;

/// `[rows][width]` row by row.
fn each_row<E: Send>(out: &mut [E], width: usize, put: impl Fn(usize, &mut [E]) + Sync) {
    out.par_chunks_mut(width).with_min_len(256).enumerate().for_each(|(row, out)| put(row, out));
}

/// `[a | b]`.
pub fn join<E: Element>(a: &[E], b: &[E], [ca, cb]: [usize; 2], y: &mut [E]) {
    each_row(y, ca + cb, |row, y| {
        y[..ca].copy_from_slice(&a[row * ca..][..ca]);
        y[ca..].copy_from_slice(&b[row * cb..][..cb]);
    })
}

/// Columns from `start` on of `[rows][c]`, as many as y has: `count`.
pub fn take_columns<E: Element>(x: &[E], c: usize, start: usize, count: usize, y: &mut [E]) {
    each_row(y, count, |row, y| y.copy_from_slice(&x[row * c + start..][..count]))
}

exports! {
    /// `[a | b]` on channels; both of one type.
    fn vx_concat(a: u32, b: u32, rows: u32, ca: u32, cb: u32) {
        let [rows, ca, cb] = [rows, ca, cb].map(|v| v as usize);
        let a = tensor::either(a, rows * ca, "concat first input")?;
        let b = tensor::get_as(b, rows * cb, "concat second input", a.dtype)?;
        let (y, handle) = tensor::make_as(rows * (ca + cb), a.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::concat(&a, &b, rows, [ca, cb], &y);
            }
            by_dtype!(a.dtype, E => join(a.of::<E>(), b.of(), [ca, cb], y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Columns `start .. start + count` of `[rows][c]`.
    fn vx_columns(x: u32, rows: u32, c: u32, start: u32, count: u32) {
        let [rows, c, start, count] = [rows, c, start, count].map(|v| v as usize);
        let x = tensor::either(x, rows * c, "columns input")?;
        if count == 0 || start + count > c {
            return Err(format!("columns: {start} to {} asked of {c}", start + count));
        }
        let (y, handle) = tensor::make_as(rows * count, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::take_columns(&x, rows, c, start, count, &y);
            }
            by_dtype!(x.dtype, E => take_columns(x.of::<E>(), c, start, count, y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Rows `start .. start + count` of `[rows][c]`.
    fn vx_rows(x: u32, rows: u32, c: u32, start: u32, count: u32) {
        let [rows, c, start, count] = [rows, c, start, count].map(|v| v as usize);
        let x = tensor::either(x, rows * c, "rows input")?;
        if count == 0 || start + count > rows {
            return Err(format!("rows: {start} to {} asked of {rows}", start + count));
        }
        let (y, handle) = tensor::make_as(count * c, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::take_rows(&x, start, c, &y);
            }
            by_dtype!(x.dtype, E => y.of_mut::<E>().copy_from_slice(&x.of::<E>()[start * c..][..count * c]));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of `vx_rows`: dy in its rows of `[rows][c]`, zero elsewhere.
    fn vx_rows_grad(dy: u32, rows: u32, c: u32, start: u32, count: u32) {
        let [rows, c, start, count] = [rows, c, start, count].map(|v| v as usize);
        let dy = tensor::either(dy, count * c, "rows output gradient")?;
        if start + count > rows {
            return Err(format!("rows: {start} to {} asked of {rows}", start + count));
        }
        let (dx, handle) = tensor::make_as(rows * c, dy.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::put_rows(&dy, start, c, &dx);
            }
            by_dtype!(dy.dtype, E => {
                let dx = dx.of_mut::<E>();
                dx.fill(E::default());
                dx[start * c..][..count * c].copy_from_slice(dy.of());
            });
            Ok(())
        });
        Ok(handle)
    }
}
