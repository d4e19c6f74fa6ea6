//! Softmax attention without the matrix of scores in memory (FlashAttention, Dao et al. 2022).
//!
//! Contract. Queries q and y `[rows][heads][h]`, keys k and their values v `[rows][heads][h]`, rows sorted by sample; a query
//! attends to the keys of its own sample.
//! s_ij = q_i . k_j / sqrt(h); p = softmax over j; y_i = sum p_ij v_j. The forward pass keeps per row and head
//! l_i = log sum_j exp(s_ij). Backward: p_ij = exp(s_ij - l_i), dv_j = sum_i p_ij dy_i, ds_ij = p_ij (dy_i . v_j -
//! dy_i . y_i), dq_i = sum_j ds_ij k_j / sqrt(h), dk_j = sum_i ds_ij q_i / sqrt(h).

pub mod cpu;
pub mod launch;
pub mod reference;

use super::rows;
use crate::abi::Result;
use crate::{gpu, queue, tensor};

/// First query and first key of each sample (and the number of them at the end), heads, channels of a head.
pub struct Shape {
    pub queries: Vec<usize>,
    pub keys: Vec<usize>,
    pub heads: usize,
    pub width: usize,
}

impl Shape {
    /// Grids and rows per block: of the queries, of the keys.
    fn new(queries: [u32; 2], keys: [u32; 2], heads: u32, c: u32) -> Result<Shape> {
        if heads == 0 || c == 0 || !c.is_multiple_of(heads) {
            return Err(format!("attention: {c} channels do not make {heads} heads"));
        }
        let [queries, keys] = [rows::starts(queries[0], queries[1])?, rows::starts(keys[0], keys[1])?];
        if queries.len() != keys.len() {
            return Err(format!("attention: queries of {} samples, keys of {}", queries.len() - 1, keys.len() - 1));
        }
        if let Some(sample) = (1..keys.len()).find(|&i| keys[i] == keys[i - 1] && queries[i] > queries[i - 1]) {
            return Err(format!("attention: sample {} has queries and no key", sample - 1));
        }
        Ok(Shape { queries, keys, heads: heads as usize, width: (c / heads) as usize })
    }
    pub fn channels(&self) -> usize {
        self.heads * self.width
    }
    pub fn query_rows(&self) -> usize {
        self.queries[self.queries.len() - 1]
    }
    fn query_len(&self) -> usize {
        self.query_rows() * self.channels()
    }
    fn key_len(&self) -> usize {
        self.keys[self.keys.len() - 1] * self.channels()
    }
}

exports! {
    /// y; writes l into `statistics`, `[queries][heads]`. Rows per block of the grids of queries and of keys.
    fn vx_attention(q: u32, k: u32, v: u32, statistics: u32, queries: u32, query_rows: u32, keys: u32, key_rows: u32, heads: u32, c: u32) {
        let s = Shape::new([queries, query_rows], [keys, key_rows], heads, c)?;
        let q = tensor::either(q, s.query_len(), "attention query")?;
        let k = tensor::get_as(k, s.key_len(), "attention key", q.dtype)?;
        let v = tensor::get_as(v, s.key_len(), "attention value", q.dtype)?;
        let l = tensor::get(statistics, s.query_rows() * s.heads, "attention statistics")?;
        let (y, handle) = tensor::make_as(s.query_len(), q.dtype);
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
    fn vx_attention_grad(q: u32, k: u32, v: u32, statistics: u32, y: u32, dy: u32, dq: u32, dk: u32, dv: u32, queries: u32, query_rows: u32, keys: u32, key_rows: u32, heads: u32, c: u32) {
        let s = Shape::new([queries, query_rows], [keys, key_rows], heads, c)?;
        let l = tensor::get(statistics, s.query_rows() * s.heads, "attention statistics")?;
        let q = tensor::either(q, s.query_len(), "attention query")?;
        let of_queries = |handle, what| tensor::get_as(handle, s.query_len(), what, q.dtype);
        let of_keys = |handle, what| tensor::get_as(handle, s.key_len(), what, q.dtype);
        let (k, v) = (of_keys(k, "attention key")?, of_keys(v, "attention value")?);
        let (y, dy) = (of_queries(y, "attention result")?, of_queries(dy, "attention gradient")?);
        let dq = of_queries(dq, "query gradient")?;
        let (dk, dv) = (of_keys(dk, "key gradient")?, of_keys(dv, "value gradient")?);
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
        let all = |starts: &[usize]| [starts.to_vec(), starts.to_vec()];
        let shapes = [
            (all(&[0, 1]), 1, 6),
            (all(&[0, 70, 75]), 2, 18),
            (all(&[0, 200]), 1, 72),
            (all(&[0, 0, 413]), 3, 7),
            ([vec![0, 40, 41, 41, 300], vec![0, 60, 200, 210, 211]], 2, 18), // more keys, none that asks, one key for many
        ];
        for ([queries, keys], heads, width) in shapes {
            let s = Shape { queries, keys, heads, width };
            let wave = |len: usize, a: f32, b: f32| -> Vec<E> {
                (0..len).map(|i| E::from_f32(1.5 * (a * i as f32 + b).sin())).collect()
            };
            let (q, dy) = (wave(s.query_len(), 0.7, 3.0), wave(s.query_len(), 0.9, 0.5));
            let (k, v) = (wave(s.key_len(), 0.31, 1.0), wave(s.key_len(), 1.1, 0.2));
            let [a, b, c, d] = [&q, &k, &v, &dy].map(|from| {
                let mut to = vec![0f32; from.len()];
                convert(from, &mut to);
                to
            });
            let want = reference::all(&s, &a, &b, &c, &d);
            let nines = |like: &Vec<E>| vec![E::from_f32(9.0); like.len()];
            let (mut l, mut y) = (vec![0.0; s.query_rows() * heads], nines(&q));
            let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(nines);
            cpu::forward(&s, &q, &k, &v, &mut l, &mut y);
            cpu::backward(&s, [&q, &k, &v, &y, &dy], &l, [&mut dq, &mut dk, &mut dv]);
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
