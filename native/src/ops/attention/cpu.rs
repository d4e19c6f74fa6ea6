//! The CPU path, made of the register tiles of the linear layers. Scores stand with keys as rows and 32 queries as
//! columns, so that a softmax runs down whole vectors; bf16 values are multiplied as bf16 where the processor can, and
//! the shares are rounded for that, while scores, sums and outputs are f32.

use super::Shape;
use crate::element::Element;
use crate::memory::Scratch;
use crate::ops::activation::exp;
use crate::ops::conv3d::direct::Shared;
use crate::ops::linear::by_group;
use crate::ops::linear::kernel::{M, N, tile};
use crate::ops::linear::pack::{Factor, turn};
use crate::wide;
use rayon::prelude::*;
use std::ops::Range;

/// Keys whose scores stay in the first cache, a multiple of `M`.
const KEYS: usize = 192;
/// Panels of queries that the backward pass takes at once.
const PANELS: usize = 2;

/// One head of one sample.
struct Head {
    first: usize,
    rows: usize,
    head: usize,
    channels: usize,
    width: usize,
}

impl Head {
    fn list(s: &Shape) -> Vec<Head> {
        let heads = |span: &[usize]| {
            let (first, rows, channels, width) = (span[0], span[1] - span[0], s.channels(), s.width);
            (0..s.heads).map(move |head| Head { first, rows, head, channels, width }).collect::<Vec<_>>()
        };
        s.starts.windows(2).flat_map(heads).filter(|h| h.rows > 0).collect()
    }
    /// First value of row `i` of this head in a tensor.
    fn at(&self, i: usize) -> usize {
        (self.first + i) * self.channels + self.head * self.width
    }
    /// Panels of `R` rows, summed over channels.
    fn by_channel<E: Element, const G: usize, const R: usize>(&self, x: &[E], rows: Range<usize>) -> Scratch<u32> {
        let mut out = Scratch::new(rows.len().div_ceil(R) * R * self.width.div_ceil(G));
        Factor::rows(&x[self.at(0)..], self.channels).pack::<G, R>(rows, 0..self.width, &mut out);
        out
    }
    /// Panels of `M` channels, summed over rows.
    fn by_row<E: Element, const G: usize>(&self, x: &[E], rows: Range<usize>) -> Scratch<u32> {
        let mut out = Scratch::new(self.panels() * M * rows.len().div_ceil(G));
        Factor::columns(&x[self.at(0)..], self.channels).pack::<G, M>(0..self.width, rows, &mut out);
        out
    }
    /// Panels of `M` channels.
    fn panels(&self) -> usize {
        self.width.div_ceil(M)
    }
    /// Writes `[channel][N]` sums, each column times its factor, to rows from `from` on.
    fn put<E: Element>(&self, sums: &[f32], factors: &[f32; N], from: usize, out: &Shared<E>) {
        let count = N.min(self.rows - from);
        let mut block = [[0u32; 16]; 16];
        for (d, columns) in (0..self.width).step_by(16).flat_map(|d| [(d, 0), (d, 16)]) {
            let wide = 16.min(self.width - d);
            for (to, sums) in block.iter_mut().zip(sums[d * N..].chunks_exact(N)).take(wide) {
                for ((to, sum), factor) in to.iter_mut().zip(&sums[columns..]).zip(&factors[columns..]) {
                    *to = (sum * factor).to_bits();
                }
            }
            turn(&mut block);
            for (i, row) in block.iter().enumerate().take(count.saturating_sub(columns)) {
                let to = unsafe { std::slice::from_raw_parts_mut(out.at(self.at(from + columns + i) + d), wide) };
                to.iter_mut().zip(row).for_each(|(to, bits)| *to = E::from_f32(f32::from_bits(*bits)));
            }
        }
    }
}

/// y and l.
pub fn forward<E: Element>(s: &Shape, q: &[E], k: &[E], v: &[E], l: &mut [f32], y: &mut [E]) {
    by_group!(E, G => forward_in::<E, G>(s, q, k, v, l, y))
}

fn forward_in<E: Element, const G: usize>(s: &Shape, q: &[E], k: &[E], v: &[E], l: &mut [f32], y: &mut [E]) {
    let (l_out, y_out, tile) = (Shared(l.as_mut_ptr()), Shared(y.as_mut_ptr()), tile(G));
    let scale = 1.0 / (s.width as f32).sqrt();
    Head::list(s).par_iter().for_each(|h| {
        let (lanes, key_lanes) = (h.width.div_ceil(G), h.rows.div_ceil(G));
        let keys = h.by_channel::<E, G, M>(k, 0..h.rows);
        let values = h.by_row::<E, G>(v, 0..h.rows);
        (0..h.rows.div_ceil(N)).into_par_iter().for_each(|block| {
            let from = block * N;
            let queries = h.by_channel::<E, G, N>(q, from..h.rows.min(from + N));
            let mut scores = Scratch::<f32>::new(KEYS * N);
            let mut shares = Scratch::<u32>::new(KEYS.div_ceil(G) * N);
            let mut sums = Scratch::<f32>::zeros(h.panels() * M * N);
            let (mut top, mut total) = ([f32::MIN; N], [0f32; N]);
            for first in (0..h.rows).step_by(KEYS) {
                let live = KEYS.min(h.rows - first);
                let depth = live.div_ceil(G);
                for (i, scores) in scores.chunks_exact_mut(M * N).enumerate().take(live.div_ceil(M)) {
                    let keys = &keys[(first / M + i) * lanes * M..];
                    unsafe { tile(keys.as_ptr(), queries.as_ptr(), lanes, scores.as_mut_ptr(), false) };
                }
                soften(&mut scores[..live * N], scale, &mut top, &mut total, &mut sums);
                Factor::columns(&scores[..live * N], N).pack::<G, N>(0..N, 0..live, &mut shares[..depth * N]);
                for (panel, sums) in sums.chunks_exact_mut(M * N).enumerate() {
                    let values = &values[(panel * key_lanes + first / G) * M..];
                    unsafe { tile(values.as_ptr(), shares.as_ptr(), depth, sums.as_mut_ptr(), true) };
                }
            }
            h.put(&sums, &total.map(|t| 1.0 / t), from, &y_out);
            for i in 0..N.min(h.rows - from) {
                unsafe { *l_out.at((h.first + from + i) * s.heads + h.head) = top[i] + total[i].ln() };
            }
        });
    });
}

wide! {
    /// Columns of scores to exp(scale * score - top), each column's running top, total and sums brought along.
    fn soften(scores: &mut [f32], scale: f32, top: &mut [f32; N], total: &mut [f32; N], sums: &mut [f32]) {
        let mut new = *top;
        for row in scores.chunks_exact_mut(N) {
            for j in 0..N {
                row[j] *= scale;
                new[j] = if row[j] > new[j] { row[j] } else { new[j] };
            }
        }
        let mut added = [0f32; N];
        for row in scores.chunks_exact_mut(N) {
            for j in 0..N {
                row[j] = exp(row[j] - new[j]);
                added[j] += row[j];
            }
        }
        let mut shrink = [0f32; N];
        for j in 0..N {
            shrink[j] = exp(top[j] - new[j]);
            total[j] = total[j] * shrink[j] + added[j];
            top[j] = new[j];
        }
        for row in sums.chunks_exact_mut(N) {
            for j in 0..N {
                row[j] *= shrink[j];
            }
        }
    }
}

wide! {
    /// Columns of scores to p and of dy . v to scale * ds, l per column.
    fn slope(p: &mut [f32], ds: &mut [f32], scale: f32, l: &[f32; N]) {
        let mut mean = [0f32; N];
        for (p, ds) in p.chunks_exact_mut(N).zip(ds.chunks_exact(N)) {
            for j in 0..N {
                p[j] = exp(scale * p[j] - l[j]);
                mean[j] += p[j] * ds[j];
            }
        }
        for (p, ds) in p.chunks_exact(N).zip(ds.chunks_exact_mut(N)) {
            for j in 0..N {
                ds[j] = scale * p[j] * (ds[j] - mean[j]);
            }
        }
    }
}

/// dq, dk, dv from [q, k, v, dy] and l.
pub fn backward<E: Element>(s: &Shape, inputs: [&[E]; 4], l: &[f32], gradients: [&mut [E]; 3]) {
    by_group!(E, G => backward_in::<E, G>(s, inputs, l, gradients))
}

/// dy . y is summed as p (dy . v) over keys, so that where one token attends to itself alone the two cancel exactly.
fn backward_in<E: Element, const G: usize>(s: &Shape, [q, k, v, dy]: [&[E]; 4], l: &[f32], gradients: [&mut [E]; 3]) {
    let [dq, dk, dv] = gradients.map(|t| Shared(t.as_mut_ptr()));
    let (tile, scale) = (tile(G), 1.0 / (s.width as f32).sqrt());
    Head::list(s).par_iter().for_each(|h| {
        let (lanes, size) = (h.width.div_ceil(G), h.panels() * M * N);
        let keys = h.by_channel::<E, G, M>(k, 0..h.rows);
        let values = h.by_channel::<E, G, M>(v, 0..h.rows);
        let across = h.by_row::<E, G>(k, 0..h.rows);
        let blocks = h.rows.div_ceil(N);
        let deep = (blocks * N).max(h.rows.next_multiple_of(M));
        let (mut dks, mut dvs) = (Scratch::<f32>::zeros(blocks * size), Scratch::<f32>::zeros(blocks * size));
        let mut p: [Scratch<f32>; PANELS] = std::array::from_fn(|_| Scratch::new(deep * N));
        let mut ds: [Scratch<f32>; PANELS] = std::array::from_fn(|_| Scratch::new(deep * N));
        let mut pairs = Scratch::<u32>::new(h.rows.div_ceil(G) * N);
        let mut sums = Scratch::<f32>::zeros(size);
        let mut right = [Scratch::<u32>::new(PANELS * N / G * N), Scratch::<u32>::new(PANELS * N / G * N)];
        for from in (0..h.rows).step_by(PANELS * N) {
            let count = (PANELS * N).min(h.rows - from);
            let down = count.div_ceil(G);
            let (queries, slopes) = (h.by_row::<E, G>(q, from..from + count), h.by_row::<E, G>(dy, from..from + count));
            for (panel, (p, ds)) in p.iter_mut().zip(&mut ds).enumerate().take(count.div_ceil(N)) {
                let first = from + panel * N;
                let rows = first..h.rows.min(first + N);
                let (queries, slopes) =
                    (h.by_channel::<E, G, N>(q, rows.clone()), h.by_channel::<E, G, N>(dy, rows.clone()));
                let mut level = [0f32; N];
                rows.zip(&mut level).for_each(|(i, level)| *level = l[(h.first + i) * s.heads + h.head]);
                for i in 0..h.rows.div_ceil(M) {
                    let (from, to) = (i * lanes * M, i * M * N);
                    unsafe {
                        tile(keys[from..].as_ptr(), queries.as_ptr(), lanes, p[to..].as_mut_ptr(), false);
                        tile(values[from..].as_ptr(), slopes.as_ptr(), lanes, ds[to..].as_mut_ptr(), false);
                    }
                }
                slope(&mut p[..h.rows * N], &mut ds[..h.rows * N], scale, &level);
                p[h.rows * N..].fill(0.0);
                ds[h.rows * N..].fill(0.0);
                Factor::columns(&ds[..h.rows * N], N).pack::<G, N>(0..N, 0..h.rows, &mut pairs);
                let all = h.rows.div_ceil(G);
                for (panel, sums) in sums.chunks_exact_mut(M * N).enumerate() {
                    let left = &across[panel * all * M..];
                    unsafe { tile(left.as_ptr(), pairs.as_ptr(), all, sums.as_mut_ptr(), false) };
                }
                h.put(&sums, &[1.0; N], first, &dq);
            }
            for block in 0..blocks {
                let sums = [&mut dvs[block * size..][..size], &mut dks[block * size..][..size]];
                for (((factor, right), left), sums) in
                    [&p, &ds].into_iter().zip(&mut right).zip([&slopes, &queries]).zip(sums)
                {
                    for (factor, right) in factor.iter().zip(right.chunks_exact_mut(N / G * N)).take(count.div_ceil(N))
                    {
                        Factor::rows(&factor[block * N * N..], N).pack::<G, N>(0..N, 0..N, right);
                    }
                    for (panel, sums) in sums.chunks_exact_mut(M * N).enumerate() {
                        let left = &left[panel * down * M..];
                        unsafe { tile(left.as_ptr(), right.as_ptr(), down, sums.as_mut_ptr(), true) };
                    }
                }
            }
        }
        for (block, (dks, dvs)) in dks.chunks_exact(size).zip(dvs.chunks_exact(size)).enumerate() {
            h.put(dks, &[1.0; N], block * N, &dk);
            h.put(dvs, &[1.0; N], block * N, &dv);
        }
    });
}
