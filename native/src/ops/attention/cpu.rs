//! The CPU path, made of the register tiles of the linear layers. Scores stand with keys as rows and 32 queries as
//! columns, so that a softmax runs down whole vectors; bf16 values are multiplied as bf16 where the processor can, and
//! the shares are rounded for that, while scores, sums and outputs are f32.
//!
//! Milliseconds of two Zen 4 cores (at their peak of 460 GFLOP/s 22 and 56), bf16, 12 heads of 72 on 1728 rows, forward and
//! backward: 37 and 84. Backward by all keys at once, with scores and slopes of two panels of queries in memory: 115. Forward
//! with the sums rescaled in a loop that the compiler turned into gathers: 41. Shares rounded where the softmax makes them, so
//! that what is packed is bf16: 2 to 5 ms more.

use super::Shape;
use crate::element::Element;
use crate::memory::Scratch;
use crate::ops::activation::exp;
use crate::ops::conv3d::direct::Shared;
use crate::ops::linear::by_group;
use crate::ops::linear::kernel::{M, N, tile};
use crate::ops::linear::pack::Factor;
use crate::ops::linear::turn::turn;
use crate::wide;
use rayon::prelude::*;
use std::ops::Range;

/// Keys whose scores stay in the nearer caches, a multiple of `M` and of `N`.
const KEYS: usize = 192;
/// Panels of queries that the backward pass takes at once.
const PANELS: usize = 2;

/// Rows of one head and one sample: its queries, or its keys.
struct Rows {
    first: usize,
    count: usize,
    head: usize,
    channels: usize,
    width: usize,
}

impl Rows {
    /// Queries and keys of every head of the samples that have keys.
    fn pairs(s: &Shape) -> Vec<[Rows; 2]> {
        let samples = s.queries.windows(2).zip(s.keys.windows(2)).filter(|(_, keys)| keys[1] > keys[0]);
        let (channels, width) = (s.channels(), s.width);
        let rows = |span: &[usize], head| Rows { first: span[0], count: span[1] - span[0], head, channels, width };
        samples.flat_map(|(queries, keys)| (0..s.heads).map(move |h| [rows(queries, h), rows(keys, h)])).collect()
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
    /// l and dy . y of the rows, by panels of queries.
    fn columns<E: Element>(&self, y: &[E], dy: &[E], l: &[f32], heads: usize) -> (Vec<[f32; N]>, Vec<[f32; N]>) {
        let mut columns = (vec![[0f32; N]; self.count.div_ceil(N)], vec![[0f32; N]; self.count.div_ceil(N)]);
        for i in 0..self.count {
            let (y, dy) = (&y[self.at(i)..][..self.width], &dy[self.at(i)..][..self.width]);
            columns.0[i / N][i % N] = l[(self.first + i) * heads + self.head];
            dot(y, dy, &mut columns.1[i / N][i % N]);
        }
        columns
    }
    /// Writes `[channel][N]` sums, each column times its factor, to rows from `from` on.
    fn put<E: Element>(&self, sums: &[f32], factors: &[f32; N], from: usize, out: &Shared<E>) {
        let count = N.min(self.count - from);
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
    Rows::pairs(s).par_iter().with_max_len(1).for_each(|[ask, tell]| {
        let (lanes, key_lanes) = (s.width.div_ceil(G), tell.count.div_ceil(G));
        let keys = tell.by_channel::<E, G, M>(k, 0..tell.count);
        let values = tell.by_row::<E, G>(v, 0..tell.count);
        (0..ask.count.div_ceil(N)).into_par_iter().with_max_len(1).for_each(|block| {
            let from = block * N;
            let queries = ask.by_channel::<E, G, N>(q, from..ask.count.min(from + N));
            let mut scores = Scratch::<f32>::new(KEYS * N);
            let mut shares = Scratch::<u32>::new(KEYS.div_ceil(G) * N);
            let mut sums = Scratch::<f32>::zeros(ask.panels() * M * N);
            let (mut top, mut total, mut shrink) = ([f32::MIN; N], [0f32; N], [0f32; N]);
            for first in (0..tell.count).step_by(KEYS) {
                let live = KEYS.min(tell.count - first);
                let depth = live.div_ceil(G);
                for (i, scores) in scores.chunks_exact_mut(M * N).enumerate().take(live.div_ceil(M)) {
                    let keys = &keys[(first / M + i) * lanes * M..];
                    unsafe { tile(keys.as_ptr(), queries.as_ptr(), lanes, scores.as_mut_ptr(), false) };
                }
                soften(&mut scores[..live * N], scale, &mut top, &mut total, &mut shrink);
                sums.chunks_exact_mut(N).for_each(|row| shorten(row, &shrink));
                Factor::columns(&scores[..live * N], N).pack::<G, N>(0..N, 0..live, &mut shares[..depth * N]);
                for (panel, sums) in sums.chunks_exact_mut(M * N).enumerate() {
                    let values = &values[(panel * key_lanes + first / G) * M..];
                    unsafe { tile(values.as_ptr(), shares.as_ptr(), depth, sums.as_mut_ptr(), true) };
                }
            }
            ask.put(&sums, &total.map(|t| 1.0 / t), from, &y_out);
            for i in 0..N.min(ask.count - from) {
                unsafe { *l_out.at((ask.first + from + i) * s.heads + ask.head) = scale * top[i] + total[i].ln() };
            }
        });
    });
}

wide! {
    /// Columns of scores to exp(scale * (score - top)), each column's running top and total brought along. What earlier sums
    /// are to be multiplied by goes to `shrink`.
    fn soften(scores: &mut [f32], scale: f32, top: &mut [f32; N], total: &mut [f32; N], shrink: &mut [f32; N]) {
        let mut new = *top;
        for row in scores.chunks_exact(N) {
            for j in 0..N {
                new[j] = if row[j] > new[j] { row[j] } else { new[j] };
            }
        }
        let mut added = [0f32; N];
        for row in scores.chunks_exact_mut(N) {
            for j in 0..N {
                row[j] = exp(scale * (row[j] - new[j]));
                added[j] += row[j];
            }
        }
        for j in 0..N {
            shrink[j] = exp(scale * (top[j] - new[j]));
            total[j] = total[j] * shrink[j] + added[j];
            top[j] = new[j];
        }
    }
}

wide! {
    /// A row of sums times a row of factors. In one loop over all rows the compiler would gather columns.
    fn shorten(sums: &mut [f32], factors: &[f32]) {
        sums.iter_mut().zip(factors).for_each(|(sum, factor)| *sum *= factor);
    }
}

wide! {
    /// Columns of scores to p and of dy . v to scale * ds; l and dy . y per column.
    fn slope(p: &mut [f32], ds: &mut [f32], scale: f32, l: &[f32; N], mean: &[f32; N]) {
        for (p, ds) in p.chunks_exact_mut(N).zip(ds.chunks_exact_mut(N)) {
            for j in 0..N {
                p[j] = exp(scale * p[j] - l[j]);
                ds[j] = scale * p[j] * (ds[j] - mean[j]);
            }
        }
    }
}

wide! {
    fn dot<E: Element>(a: &[E], b: &[E], sum: &mut f32) {
        *sum = a.iter().zip(b).map(|(a, b)| a.to_f32() * b.to_f32()).sum();
    }
}

/// dq, dk, dv from [q, k, v, y, dy] and l.
pub fn backward<E: Element>(s: &Shape, inputs: [&[E]; 5], l: &[f32], gradients: [&mut [E]; 3]) {
    by_group!(E, G => backward_in::<E, G>(s, inputs, l, gradients))
}

/// Gradients of one sample's head with one key: exact, where two rounded terms would not cancel.
fn alone<E: Element>(ask: &Rows, tell: &Rows, dy: &[E], [dq, dk, dv]: [&Shared<E>; 3]) {
    let row = |of: &Rows, to: &Shared<E>, i| unsafe { std::slice::from_raw_parts_mut(to.at(of.at(i)), of.width) };
    let mut sums = vec![0f32; tell.width];
    for i in 0..ask.count {
        row(ask, dq, i).fill(E::default());
        sums.iter_mut().zip(&dy[ask.at(i)..]).for_each(|(sum, dy)| *sum += dy.to_f32());
    }
    row(tell, dk, 0).fill(E::default());
    row(tell, dv, 0).iter_mut().zip(&sums).for_each(|(to, sum)| *to = E::from_f32(*sum));
}

/// A stretch of keys stays in the second cache with its gradients while all queries pass it; sums of dq wait in f32.
fn backward_in<E: Element, const G: usize>(
    s: &Shape,
    [q, k, v, y, dy]: [&[E]; 5],
    l: &[f32],
    gradients: [&mut [E]; 3],
) {
    let [dq, dk, dv] = gradients.map(|t| Shared(t.as_mut_ptr()));
    let (tile, scale) = (tile(G), 1.0 / (s.width as f32).sqrt());
    Rows::pairs(s).par_iter().with_max_len(1).for_each(|[ask, tell]| {
        if tell.count == 1 {
            return alone(ask, tell, dy, [&dq, &dk, &dv]);
        }
        let (lanes, size) = (s.width.div_ceil(G), ask.panels() * M * N);
        let [queries, slopes] = [q, dy].map(|x| ask.by_channel::<E, G, N>(x, 0..ask.count));
        let groups = (0..ask.count).step_by(PANELS * N).map(|from| from..ask.count.min(from + PANELS * N));
        let groups: Vec<_> = groups.map(|g| (g.clone(), [dy, q].map(|x| ask.by_row::<E, G>(x, g.clone())))).collect();
        let (levels, means) = ask.columns(y, dy, l, s.heads);
        let mut dqs = Scratch::<f32>::zeros(levels.len() * size);
        let mut p: [Scratch<f32>; PANELS] = std::array::from_fn(|_| Scratch::new(KEYS * N));
        let mut ds: [Scratch<f32>; PANELS] = std::array::from_fn(|_| Scratch::new(KEYS * N));
        let mut pairs = Scratch::<u32>::new(KEYS / G * N);
        let mut right = Scratch::<u32>::new(PANELS * N / G * N);
        for first in (0..tell.count).step_by(KEYS) {
            let live = KEYS.min(tell.count - first);
            let (span, depth, blocks) = (first..first + live, live.div_ceil(G), live.div_ceil(N));
            let keys = tell.by_channel::<E, G, M>(k, span.clone());
            let values = tell.by_channel::<E, G, M>(v, span.clone());
            let across = tell.by_row::<E, G>(k, span);
            let mut sums = [dv, dk].map(|to| (to, Scratch::<f32>::zeros(blocks * size)));
            for (group, lefts) in &groups {
                let (panel, count) = (group.start / N, group.len().div_ceil(N));
                for (at, (p, ds)) in p.iter_mut().zip(&mut ds).enumerate().take(count) {
                    let panel = panel + at;
                    for i in 0..live.div_ceil(M) {
                        let (from, to, with) = (i * lanes * M, i * M * N, panel * lanes * N);
                        unsafe {
                            tile(keys[from..].as_ptr(), queries[with..].as_ptr(), lanes, p[to..].as_mut_ptr(), false);
                            tile(values[from..].as_ptr(), slopes[with..].as_ptr(), lanes, ds[to..].as_mut_ptr(), false);
                        }
                    }
                    slope(&mut p[..live * N], &mut ds[..live * N], scale, &levels[panel], &means[panel]);
                    p[live * N..].fill(0.0);
                    ds[live * N..].fill(0.0);
                    Factor::columns(&ds[..live * N], N).pack::<G, N>(0..N, 0..live, &mut pairs[..depth * N]);
                    let dqs = &mut dqs[panel * size..][..size];
                    for (left, dqs) in across.chunks_exact(depth * M).zip(dqs.chunks_exact_mut(M * N)) {
                        unsafe { tile(left.as_ptr(), pairs.as_ptr(), depth, dqs.as_mut_ptr(), true) };
                    }
                }
                let down = group.len().div_ceil(G);
                for ((factor, left), (_, sums)) in [&p, &ds].into_iter().zip(lefts).zip(&mut sums) {
                    for (block, sums) in sums.chunks_exact_mut(size).enumerate() {
                        for (factor, right) in factor.iter().zip(right.chunks_exact_mut(N / G * N)).take(count) {
                            Factor::rows(&factor[block * N * N..], N).pack::<G, N>(0..N, 0..N, right);
                        }
                        for (left, sums) in left.chunks_exact(down * M).zip(sums.chunks_exact_mut(M * N)) {
                            unsafe { tile(left.as_ptr(), right.as_ptr(), down, sums.as_mut_ptr(), true) };
                        }
                    }
                }
            }
            for (to, sums) in &sums {
                for (block, sums) in sums.chunks_exact(size).enumerate() {
                    tell.put(sums, &[1.0; N], first + block * N, to);
                }
            }
        }
        for (panel, sums) in dqs.chunks_exact(size).enumerate() {
            ask.put(sums, &[1.0; N], panel * N, &dq);
        }
    });
}
