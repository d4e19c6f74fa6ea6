//! Matrices put together and taken apart.
//!
//! Contract. concat: a `[rows][ca]`, b `[rows][cb]` -> `[rows][ca + cb]`. columns: `count` columns from `start`.
//! rows: `count` rows from `start`; its gradient is zero in the other rows.

use crate::{queue, tensor};
use rayon::prelude::*;

exports! {
    /// `[a | b]` on channels.
    fn vx_concat(a: u32, b: u32, rows: u32, ca: u32, cb: u32) {
        let [rows, ca, cb] = [rows, ca, cb].map(|v| v as usize);
        let a = tensor::get(a, rows * ca, "concat first input")?;
        let b = tensor::get(b, rows * cb, "concat second input")?;
        let (y, handle) = tensor::make(rows * (ca + cb));
        queue::enqueue(move || {
            let (a, b) = (a.values(), b.values());
            y.values_mut().par_chunks_mut(ca + cb).with_min_len(256).enumerate().for_each(|(row, y)| {
                y[..ca].copy_from_slice(&a[row * ca..][..ca]);
                y[ca..].copy_from_slice(&b[row * cb..][..cb]);
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Columns `start .. start + count` of `[rows][c]`.
    fn vx_columns(x: u32, rows: u32, c: u32, start: u32, count: u32) {
        let [rows, c, start, count] = [rows, c, start, count].map(|v| v as usize);
        let x = tensor::get(x, rows * c, "columns input")?;
        if count == 0 || start + count > c {
            return Err(format!("columns: {start} to {} asked of {c}", start + count));
        }
        let (y, handle) = tensor::make(rows * count);
        queue::enqueue(move || {
            let x = x.values();
            let out = y.values_mut().par_chunks_mut(count).with_min_len(256).enumerate();
            out.for_each(|(row, y)| y.copy_from_slice(&x[row * c + start..][..count]));
            Ok(())
        });
        Ok(handle)
    }
    /// Rows `start .. start + count` of `[rows][c]`.
    fn vx_rows(x: u32, rows: u32, c: u32, start: u32, count: u32) {
        let [rows, c, start, count] = [rows, c, start, count].map(|v| v as usize);
        let x = tensor::get(x, rows * c, "rows input")?;
        if count == 0 || start + count > rows {
            return Err(format!("rows: {start} to {} asked of {rows}", start + count));
        }
        let (y, handle) = tensor::make(count * c);
        queue::enqueue(move || { y.values_mut().copy_from_slice(&x.values()[start * c..][..count * c]); Ok(()) });
        Ok(handle)
    }
    /// Gradient of `vx_rows`: dy in its rows of `[rows][c]`, zero elsewhere.
    fn vx_rows_grad(dy: u32, rows: u32, c: u32, start: u32, count: u32) {
        let [rows, c, start, count] = [rows, c, start, count].map(|v| v as usize);
        let dy = tensor::get(dy, count * c, "rows output gradient")?;
        if start + count > rows {
            return Err(format!("rows: {start} to {} asked of {rows}", start + count));
        }
        let (dx, handle) = tensor::make(rows * c);
        queue::enqueue(move || {
            let dx = dx.values_mut();
            dx.fill(0.0);
            dx[start * c..][..count * c].copy_from_slice(dy.values());
            Ok(())
        });
        Ok(handle)
    }
}
