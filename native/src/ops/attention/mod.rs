//! Softmax attention without the matrix of scores in memory (FlashAttention, Dao et al. 2022).
//!
//! Contract. q, k, v, y `[rows][heads][h]`, rows sorted by sample; a row attends to the rows of its own sample.
//! s_ij = q_i . k_j / sqrt(h); p = softmax over j; y_i = sum p_ij v_j. The forward pass keeps per row and head
//! l_i = log sum_j exp(s_ij). Backward: p_ij = exp(s_ij - l_i), dv_j = sum_i p_ij dy_i, ds_ij = p_ij (dy_i . v_j -
//! dy_i . y_i), dq_i = sum_j ds_ij k_j / sqrt(h), dk_j = sum_i ds_ij q_i / sqrt(h).

pub mod cpu;
pub mod reference;

use super::rows;
use crate::abi::Result;
use crate::{queue, tensor};

/// First row of each sample (and the number of rows at the end), heads, channels of a head.
pub struct Shape {
    pub starts: Vec<usize>,
    pub heads: usize,
    pub width: usize,
}

impl Shape {
    fn new(grid: u32, voxels: u32, heads: u32, c: u32) -> Result<Shape> {
        if heads == 0 || c == 0 || !c.is_multiple_of(heads) {
            return Err(format!("attention: {c} channels do not make {heads} heads"));
        }
        Ok(Shape { starts: rows::starts(grid, voxels)?, heads: heads as usize, width: (c / heads) as usize })
    }
    pub fn channels(&self) -> usize {
        self.heads * self.width
    }
    pub fn rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }
    fn len(&self) -> usize {
        self.rows() * self.channels()
    }
}

exports! {
    /// y; writes l into `statistics`, `[rows][heads]`. voxels: rows per block of the grid.
    fn vx_attention(q: u32, k: u32, v: u32, statistics: u32, grid: u32, voxels: u32, heads: u32, c: u32) {
        let s = Shape::new(grid, voxels, heads, c)?;
        let q = tensor::get(q, s.len(), "attention query")?;
        let k = tensor::get(k, s.len(), "attention key")?;
        let v = tensor::get(v, s.len(), "attention value")?;
        let l = tensor::get(statistics, s.rows() * s.heads, "attention statistics")?;
        let (y, handle) = tensor::make(s.len());
        queue::enqueue(move || {
            cpu::forward(&s, q.values(), k.values(), v.values(), l.values_mut(), y.values_mut());
            Ok(())
        });
        Ok(handle)
    }
    /// Writes the gradients of q, k and v into dq, dk and dv.
    fn vx_attention_grad(q: u32, k: u32, v: u32, statistics: u32, y: u32, dy: u32, dq: u32, dk: u32, dv: u32, grid: u32, voxels: u32, heads: u32, c: u32) {
        let s = Shape::new(grid, voxels, heads, c)?;
        let l = tensor::get(statistics, s.rows() * s.heads, "attention statistics")?;
        let get = |handle, what| tensor::get(handle, s.len(), what);
        let (q, k, v) = (get(q, "attention query")?, get(k, "attention key")?, get(v, "attention value")?);
        let (y, dy) = (get(y, "attention output")?, get(dy, "attention gradient")?);
        let (dq, dk, dv) = (get(dq, "query gradient")?, get(dk, "key gradient")?, get(dv, "value gradient")?);
        queue::enqueue(move || {
            let inputs = [q.values(), k.values(), v.values(), l.values(), y.values(), dy.values()];
            cpu::backward(&s, inputs, [dq.values_mut(), dk.values_mut(), dv.values_mut()]);
            Ok(())
        });
        Ok(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_path_equals_the_loop_nest() {
        for (starts, heads, width) in [(vec![0, 1], 1, 6), (vec![0, 70, 75], 2, 18), (vec![0, 200], 1, 72)] {
            let s = Shape { starts, heads, width };
            let wave = |a: f32, b: f32| -> Vec<f32> { (0..s.len()).map(|i| 1.5 * (a * i as f32 + b).sin()).collect() };
            let (q, k, v, dy) = (wave(0.7, 3.0), wave(0.31, 1.0), wave(1.1, 0.2), wave(0.9, 0.5));
            let want = reference::all(&s, &q, &k, &v, &dy);
            let (mut l, mut y) = (vec![0.0; s.rows() * heads], vec![9.0; s.len()]);
            cpu::forward(&s, &q, &k, &v, &mut l, &mut y);
            let mut d = [vec![9.0; s.len()], vec![9.0; s.len()], vec![9.0; s.len()]];
            let [dq, dk, dv] = &mut d;
            cpu::backward(&s, [&q, &k, &v, &l, &y, &dy], [dq, dk, dv]);
            let [dq, dk, dv] = d;
            for (got, want) in [y, dq, dk, dv].iter().zip(&want) {
                let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
                for (i, (g, w)) in got.iter().zip(want).enumerate() {
                    assert!((*g as f64 - w).abs() < 1e-5 * scale, "value {i}: {g} against {w}, scale {scale}");
                }
            }
        }
    }
}
