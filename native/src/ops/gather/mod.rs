//! Rows of one tensor in another order, with gaps: partition into windows, cyclic shifts, padding, cropping, transposes.
//!
//! Contract. x `[rows][c]`, y `[index][c]`: y[i] = x[index[i]], or 0 where index[i] is -1. The gradient is the same op
//! with the inverse index, where no row is taken twice.

pub mod launch;

use super::rows;
use crate::abi::Result;
use crate::{gpu, queue, tensor};

fn checked(index: &[i32], rows: u32) -> Result<Vec<i32>> {
    match index.iter().find(|&&i| i < -1 || i >= rows as i32) {
        Some(i) => Err(format!("gather: row {i} of {rows} does not exist")),
        None => Ok(index.to_vec()),
    }
}

exports! {
    /// Rows of x in the order of the index; -1 is a row of zeros.
    fn vx_gather_rows(x: u32, rows: u32, c: u32, index: slice[i32]) {
        let (index, c) = (checked(index, rows)?, c as usize);
        let x = tensor::either(x, rows as usize * c, "gather input")?;
        let (y, handle) = tensor::make_as(index.len() * c, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&x, &index, c, &y);
            }
            by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                rows::fill(&rows::pieces(&[0, index.len()], c), c, y.of_mut::<E>(), |piece, y| {
                    for (y, &i) in y.chunks_exact_mut(c).zip(&index[piece.rows.clone()]) {
                        match usize::try_from(i) {
                            Ok(i) => y.copy_from_slice(&x[i * c..][..c]),
                            Err(_) => y.fill(E::default()),
                        }
                    }
                })
            });
            Ok(())
        });
        Ok(handle)
    }
}
