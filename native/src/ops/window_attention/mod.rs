//! Attention inside windows with a relative position bias and a mask (Swin).
//!
//! Contract. Tensors f32 or bf16 (products in f32). qkv `[window][token][3][head][d]`, y `[window][token][head][d]`, table `[(2s - 1)^3][head]` for a window
//! edge of s. With token i of the n at place i of a window of s^3 in z, y, x order (also when n is smaller: the published
//! index is cut, not rebuilt), bias(i, j) = table[place(i) - place(j) + s - 1]. score(i, j) = q_i k_j / sqrt d +
//! bias(i, j) - 100 where region(i) is not region(j); y_i = sum over j of softmax_j(score(i, j)) v_j. regions
//! `[windows of a sample][token]` repeat over the samples; none means no mask.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::abi::Result;
use crate::{gpu, queue, tensor};

/// Shape of a batch of windows.
#[derive(Clone)]
pub struct Shape {
    pub windows: usize,
    pub tokens: usize,
    pub heads: usize,
    pub width: usize,
    pub edge: usize,
    pub regions: Vec<u8>,
}

impl Shape {
    fn new(windows: u32, tokens: u32, heads: u32, width: u32, edge: u32, regions: &[u8]) -> Result<Shape> {
        let [windows, tokens, heads, width, edge] = [windows, tokens, heads, width, edge].map(|v| v as usize);
        if [windows, tokens, heads, width, edge].contains(&0) || tokens > edge.pow(3) {
            return Err(format!(
                "window attention: {tokens} tokens in windows of edge {edge}, {heads} heads of {width}"
            ));
        }
        if !regions.is_empty() && (!regions.len().is_multiple_of(tokens) || windows % (regions.len() / tokens) != 0) {
            return Err(format!("window attention: {} regions do not fit {windows} windows", regions.len()));
        }
        Ok(Shape { windows, tokens, heads, width, edge, regions: regions.to_vec() })
    }
    pub fn channels(&self) -> usize {
        self.heads * self.width
    }
    pub fn entries(&self) -> usize {
        (2 * self.edge - 1).pow(3)
    }
    fn len(&self) -> usize {
        self.windows * self.tokens * self.channels()
    }
    /// Entry of the table for the pair (i, j) is `place(i) - place(j) + centre`.
    pub fn place(&self, i: usize) -> usize {
        let (s, row) = (self.edge, 2 * self.edge - 1);
        (i / (s * s) * row + i / s % s) * row + i % s
    }
    pub fn centre(&self) -> usize {
        let row = 2 * self.edge - 1;
        (self.edge - 1) * (row * row + row + 1)
    }
    /// The regions of the tokens of a window.
    pub fn regions_of(&self, window: usize) -> Option<&[u8]> {
        if self.regions.is_empty() {
            return None;
        }
        Some(&self.regions[window * self.tokens % self.regions.len()..][..self.tokens])
    }
}

exports! {
    /// y from qkv and the table of biases; no regions: no mask.
    fn vx_window_attention(qkv: u32, table: u32, windows: u32, tokens: u32, heads: u32, width: u32, edge: u32, regions: slice[u8]) {
        let s = Shape::new(windows, tokens, heads, width, edge, regions)?;
        let qkv = tensor::either(qkv, 3 * s.len(), "window attention input")?;
        let table = tensor::get(table, s.entries() * s.heads, "window attention table")?;
        let (y, handle) = tensor::make_as(s.len(), qkv.dtype);
        queue::enqueue(move || {
            if gpu::active() && launch::offered(&s) {
                return launch::forward(&s, &qkv, &table, &y);
            }
            by_dtype!(qkv.dtype, E => cpu::forward(&s, qkv.of::<E>(), table.values(), y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of qkv, and that of the table into `dtable`.
    fn vx_window_attention_grad(qkv: u32, table: u32, dy: u32, dtable: u32, windows: u32, tokens: u32, heads: u32, width: u32, edge: u32, regions: slice[u8]) {
        let s = Shape::new(windows, tokens, heads, width, edge, regions)?;
        let qkv = tensor::either(qkv, 3 * s.len(), "window attention input")?;
        let table = tensor::get(table, s.entries() * s.heads, "window attention table")?;
        let dtable = tensor::get(dtable, s.entries() * s.heads, "window attention table gradient")?;
        let dy = tensor::get_as(dy, s.len(), "window attention output gradient", qkv.dtype)?;
        let (dqkv, handle) = tensor::make_as(3 * s.len(), qkv.dtype);
        queue::enqueue(move || {
            if gpu::active() && launch::offered(&s) {
                return launch::backward(&s, [&qkv, &table, &dy], &dqkv, &dtable);
            }
            let (table, dtable) = (table.values(), dtable.values_mut());
            by_dtype!(qkv.dtype, E => cpu::backward(&s, qkv.of::<E>(), table, dy.of(), dqkv.of_mut(), dtable));
            Ok(())
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_path_equals_the_loop_nest() {
        let regions: Vec<u8> = (0..54).map(|i| (i * i % 5 / 2) as u8).collect();
        for (windows, tokens, heads, width, edge, regions) in
            [(4, 27, 2, 3, 3, &regions[..]), (3, 8, 1, 16, 3, &[][..]), (1, 20, 2, 20, 3, &regions[..20])]
        {
            let s = Shape::new(windows, tokens, heads, width, edge, regions).unwrap();
            let wave = |a: f32, n: usize| -> Vec<f32> { (0..n).map(|i| (a * i as f32 + 0.3).sin()).collect() };
            let (qkv, dy, table) = (wave(0.7, 3 * s.len()), wave(0.4, s.len()), wave(0.9, s.entries() * s.heads));
            let want = reference::all(&s, &qkv, &table, &dy);
            let (mut y, mut dqkv) = (vec![0.0; dy.len()], vec![0.0; qkv.len()]);
            let mut dtable = vec![0.0; table.len()];
            cpu::forward(&s, &qkv, &table, &mut y);
            cpu::backward(&s, &qkv, &table, &dy, &mut dqkv, &mut dtable);
            for (got, want) in [(y, want.0), (dqkv, want.1), (dtable, want.2)] {
                for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                    assert!((*g as f64 - w).abs() < 1e-5, "value {i}: {g} against {w}");
                }
            }
        }
    }
}
