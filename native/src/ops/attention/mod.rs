//! Softmax attention without the matrix of scores in memory (FlashAttention, Dao et al. 2022).
//!
//! Contract. q, k, v, y `[rows][heads][h]`, rows sorted by sample; a row attends to the rows of its own sample.
//! s_ij = q_i . k_j / sqrt(h); p = softmax over j; y_i = sum p_ij v_j. The forward pass keeps per row and head
//! l_i = log sum_j exp(s_ij). Backward: p_ij = exp(s_ij - l_i), dv_j = sum_i p_ij dy_i, ds_ij = p_ij (dy_i . v_j -
//! dy_i . y_i), dq_i = sum_j ds_ij k_j / sqrt(h), dk_j = sum_i ds_ij q_i / sqrt(h).

pub mod cpu;
pub mod launch;
pub mod reference;

use super::rows;
use crate::abi::Result;
use crate::{gpu, queue, tensor};

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
        let q = tensor::either(q, s.len(), "attention query")?;
        let k = tensor::get_as(k, s.len(), "attention key", q.dtype)?;
        let v = tensor::get_as(v, s.len(), "attention value", q.dtype)?;
        let l = tensor::get(statistics, s.rows() * s.heads, "attention statistics")?;
        let (y, handle) = tensor::make_as(s.len(), q.dtype);
        queue::enqueue(move || {
            if gpu::active() && launch::offered(&s, q.dtype) {
                return launch::forward(&s, [&q, &k, &v], &l, &y);
            }
            by_dtype!(q.dtype, E => cpu::forward(&s, q.of::<E>(), k.of(), v.of(), l.values_mut(), y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Writes the gradients of q, k and v into dq, dk and dv.
    fn vx_attention_grad(q: u32, k: u32, v: u32, statistics: u32, y: u32, dy: u32, dq: u32, dk: u32, dv: u32, grid: u32, voxels: u32, heads: u32, c: u32) {
        let s = Shape::new(grid, voxels, heads, c)?;
        let l = tensor::get(statistics, s.rows() * s.heads, "attention statistics")?;
        let q = tensor::either(q, s.len(), "attention query")?;
        let get = |handle, what| tensor::get_as(handle, s.len(), what, q.dtype);
        let (k, v) = (get(k, "attention key")?, get(v, "attention value")?);
        let (y, dy) = (get(y, "attention result")?, get(dy, "attention gradient")?);
        let (dq, dk, dv) = (get(dq, "query gradient")?, get(dk, "key gradient")?, get(dv, "value gradient")?);
        queue::enqueue(move || {
            if gpu::active() && launch::offered(&s, q.dtype) {
                return launch::backward(&s, [&q, &k, &v, &y, &dy], &l, [&dq, &dk, &dv]);
            }
            by_dtype!(q.dtype, E => {
                let inputs = [q.of::<E>(), k.of(), v.of(), y.of(), dy.of()];
                cpu::backward(&s, inputs, l.values(), [dq.of_mut(), dk.of_mut(), dv.of_mut()]);
            });
            Ok(())
        });
        Ok(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{Element, convert};
    use crate::ops::conv3d::isa;
    use half::bf16;

    /// Against the loop nest on the stored values, relative to the largest value or 0.1: values of size 1.5 are rounded
    /// before they cancel (in bf16 shares and slopes, too).
    fn check<E: Element>(tolerance: f64) {
        let shapes = [(vec![0, 1], 1, 6), (vec![0, 70, 75], 2, 18), (vec![0, 200], 1, 72), (vec![0, 0, 413], 3, 7)];
        for (starts, heads, width) in shapes {
            let s = Shape { starts, heads, width };
            let wave = |a: f32, b: f32| -> Vec<E> {
                (0..s.len()).map(|i| E::from_f32(1.5 * (a * i as f32 + b).sin())).collect()
            };
            let (q, k, v, dy) = (wave(0.7, 3.0), wave(0.31, 1.0), wave(1.1, 0.2), wave(0.9, 0.5));
            let [a, b, c, d] = [&q, &k, &v, &dy].map(|from| {
                let mut to = vec![0f32; from.len()];
                convert(from, &mut to);
                to
            });
            let want = reference::all(&s, &a, &b, &c, &d);
            let nine = vec![E::from_f32(9.0); s.len()];
            let (mut l, mut y, mut d) = (vec![0.0; s.rows() * heads], nine.clone(), [nine.clone(), nine.clone(), nine]);
            cpu::forward(&s, &q, &k, &v, &mut l, &mut y);
            let [dq, dk, dv] = &mut d;
            cpu::backward(&s, [&q, &k, &v, &y, &dy], &l, [dq, dk, dv]);
            let [dq, dk, dv] = d;
            for (n, (got, want)) in [y, dq, dk, dv].iter().zip(&want).enumerate() {
                let scale = want.iter().fold(0.1f64, |m, v| m.max(v.abs()));
                for (i, (g, w)) in got.iter().zip(want).enumerate() {
                    let off = (g.to_f32() as f64 - w).abs();
                    assert!(off < tolerance * scale, "result {n} value {i}: {g:?} against {w}, scale {scale}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_equals_the_loop_nest() {
        let _forcing = isa::FORCING.lock();
        for level in isa::available() {
            isa::force(Some(level));
            check::<f32>(3e-6);
            check::<bf16>(1.0 / 64.0);
        }
        isa::force(None);
    }
}
