//! The CPU path: 32 queries against 64 keys at a time, so that their scores stay in the first cache. Heads run side by
//! side; within one the order is fixed.

use super::Shape;
use crate::ops::activation::exp;
use crate::ops::tile::{Strides, product, widest};
use rayon::prelude::*;

const QUERIES: usize = 32;
const KEYS: usize = 64;

/// A pointer that heads may share because they write disjoint places.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// No other task may touch these values.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, at: usize, len: usize) -> &mut [f32] {
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

/// One head of one sample.
struct Head {
    first: usize,
    rows: usize,
    head: usize,
    channels: usize,
    width: usize,
    /// `width` rounded up to whole vectors.
    padded: usize,
}

impl Head {
    fn list(s: &Shape) -> Vec<Head> {
        let heads = |span: &[usize]| {
            let (first, rows) = (span[0], span[1] - span[0]);
            let (channels, width, padded) = (s.channels(), s.width, s.width.next_multiple_of(16));
            (0..s.heads).map(move |head| Head { first, rows, head, channels, width, padded }).collect::<Vec<_>>()
        };
        s.starts.windows(2).flat_map(heads).filter(|h| h.rows > 0).collect()
    }
    /// First value of row `i` of this head in a tensor.
    fn at(&self, i: usize) -> usize {
        (self.first + i) * self.channels + self.head * self.width
    }
    fn row<'a>(&self, values: &'a [f32], i: usize) -> &'a [f32] {
        &values[self.at(i)..][..self.width]
    }
    /// Rows `from..from + count` as `[count][padded]` times `factor`, zero beyond the last.
    fn pack(&self, values: &[f32], from: usize, count: usize, factor: f32, out: &mut Vec<f32>) {
        out.clear();
        out.resize(count * self.padded, 0.0);
        for (i, to) in out.chunks_exact_mut(self.padded).enumerate().take(self.rows.saturating_sub(from)) {
            to.iter_mut().zip(self.row(values, from + i)).for_each(|(t, v)| *t = v * factor);
        }
    }
    /// All rows in blocks of `keys` as `[block][width][keys]`, zero beyond the last.
    fn transposed(&self, values: &[f32], keys: usize) -> Vec<f32> {
        let mut out = vec![0f32; self.rows.div_ceil(keys) * self.width * keys];
        for i in 0..self.rows {
            let block = &mut out[i / keys * self.width * keys..];
            for (d, v) in self.row(values, i).iter().enumerate() {
                block[d * keys + i % keys] = *v;
            }
        }
        out
    }
    fn sizes(&self) -> (usize, usize) {
        (QUERIES.min(self.rows.next_multiple_of(8)), KEYS.min(self.rows.next_multiple_of(16)))
    }
}

/// y and l.
pub fn forward(s: &Shape, q: &[f32], k: &[f32], v: &[f32], l: &mut [f32], y: &mut [f32]) {
    let (l_out, y_out, heads) = (Shared(l.as_mut_ptr()), Shared(y.as_mut_ptr()), s.heads);
    let scale = 1.0 / (s.width as f32).sqrt();
    Head::list(s).par_iter().for_each(|h| {
        let (queries, keys) = h.sizes();
        let transposed = h.transposed(k, keys);
        let mut values = Vec::new();
        h.pack(v, 0, h.rows.next_multiple_of(keys), 1.0, &mut values);
        (0..h.rows.div_ceil(queries)).into_par_iter().for_each(|block| {
            let from = block * queries;
            let mut packed = Vec::new();
            h.pack(q, from, queries, scale, &mut packed);
            let mut scores = vec![0f32; queries * keys];
            let mut sums = vec![0f32; queries * h.padded];
            let mut top = vec![f32::MIN; queries];
            let mut total = vec![0f32; queries];
            for (j, kt) in transposed.chunks_exact(h.width * keys).enumerate() {
                let left = Strides { row: h.padded, column: 1 };
                product([queries, keys, h.width], &packed, left, kt, keys, &mut scores, keys, false);
                let live = keys.min(h.rows - j * keys);
                soften(&mut scores, keys, live, &mut top, &mut total, &mut sums, h.padded);
                let (left, right) = (Strides { row: keys, column: 1 }, &values[j * keys * h.padded..]);
                product([queries, h.padded, keys], &scores, left, right, h.padded, &mut sums, h.padded, true);
            }
            for i in 0..queries.min(h.rows - from) {
                let row = h.first + from + i;
                let out = unsafe { y_out.part(h.at(from + i), h.width) };
                out.iter_mut().zip(&sums[i * h.padded..]).for_each(|(o, v)| *o = v / total[i]);
                unsafe { l_out.part(row * heads + h.head, 1)[0] = top[i] + total[i].ln() };
            }
        });
    });
}

widest! {
/// Rows of `keys` scores to exp(score - top), each row's running top, total and sums brought along; 0 from `live` on.
fn soften(
    scores: &mut [f32],
    keys: usize,
    live: usize,
    top: &mut [f32],
    total: &mut [f32],
    sums: &mut [f32],
    padded: usize,
) {
    for (i, scores) in scores.chunks_exact_mut(keys).enumerate() {
        let mut lanes = [f32::MIN; 16];
        scores[live..].fill(f32::MIN);
        for part in scores.chunks_exact(16) {
            lanes.iter_mut().zip(part).for_each(|(l, v)| *l = if *v > *l { *v } else { *l });
        }
        let new = lanes.iter().copied().fold(top[i], f32::max);
        let mut added = [0f32; 16];
        for part in scores.chunks_exact_mut(16) {
            for (value, sum) in part.iter_mut().zip(&mut added) {
                *value = exp(*value - new);
                *sum += *value;
            }
        }
        scores[live..].fill(0.0);
        if new > top[i] {
            let shrink = exp(top[i] - new);
            sums[i * padded..][..padded].iter_mut().for_each(|v| *v *= shrink);
            total[i] *= shrink;
        }
        total[i] += added.iter().sum::<f32>();
        top[i] = new;
    }
}
}

widest! {
/// Rows of scores to p and of dy . v to ds, both 0 from `live` on; per row l and dy . y.
fn slope(p: &mut [f32], ds: &mut [f32], keys: usize, live: usize, rows: &[(f32, f32)]) {
    for ((p, ds), (l, mean)) in p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys)).zip(rows) {
        for (p, ds) in p.iter_mut().zip(&mut *ds) {
            *p = exp(*p - l);
            *ds = *p * (*ds - mean);
        }
        p[live..].fill(0.0);
        ds[live..].fill(0.0);
    }
}
}

/// dq, dk, dv from [q, k, v, l, y, dy].
pub fn backward(s: &Shape, [q, k, v, l, y, dy]: [&[f32]; 6], [dq, dk, dv]: [&mut [f32]; 3]) {
    let [dq, dk, dv] = [dq, dk, dv].map(|t| Shared(t.as_mut_ptr()));
    let scale = 1.0 / (s.width as f32).sqrt();
    Head::list(s).par_iter().for_each(|h| {
        let (queries, keys) = h.sizes();
        let (padded, width, all) = (h.padded, h.width, h.rows.next_multiple_of(keys));
        let (kt, vt) = (h.transposed(k, keys), h.transposed(v, keys));
        let (mut kp, mut qp, mut gp) = (Vec::new(), Vec::new(), Vec::new());
        h.pack(k, 0, all, scale, &mut kp);
        let (mut dks, mut dvs) = (vec![0f32; all * padded], vec![0f32; all * padded]);
        let (mut p, mut ds) = (vec![0f32; queries * keys], vec![0f32; queries * keys]);
        let mut dqs = vec![0f32; queries * padded];
        let mut row = vec![(0f32, 0f32); queries];
        let left = Strides { row: padded, column: 1 };
        let (down, over) = (Strides { row: 1, column: keys }, Strides { row: keys, column: 1 });
        for from in (0..h.rows).step_by(queries) {
            h.pack(q, from, queries, scale, &mut qp);
            h.pack(dy, from, queries, 1.0, &mut gp);
            dqs.fill(0.0);
            for (i, (l_i, mean)) in row.iter_mut().enumerate().take(h.rows - from) {
                *l_i = l[(h.first + from + i) * s.heads + h.head];
                let terms = h.row(dy, from + i).iter().zip(h.row(y, from + i));
                // Summed as `product` sums dy . v: where one token attends to itself alone, the two cancel exactly.
                *mean = terms.fold(0.0, |sum, (g, y)| sum + g * y);
            }
            for j in 0..all / keys {
                let block = j * width * keys..(j + 1) * width * keys;
                product([queries, keys, width], &qp, left, &kt[block.clone()], keys, &mut p, keys, false);
                product([queries, keys, width], &gp, left, &vt[block], keys, &mut ds, keys, false);
                let live = keys.min(h.rows - j * keys);
                slope(&mut p, &mut ds, keys, live, &row);
                // Scores of queries beyond the last meet zero rows of q and dy.
                let at = j * keys * padded;
                product([keys, padded, queries], &p, down, &gp, padded, &mut dvs[at..], padded, true);
                product([keys, padded, queries], &ds, down, &qp, padded, &mut dks[at..], padded, true);
                product([queries, padded, keys], &ds, over, &kp[at..], padded, &mut dqs, padded, true);
            }
            for i in 0..queries.min(h.rows - from) {
                unsafe { dq.part(h.at(from + i), width) }.copy_from_slice(&dqs[i * padded..][..width]);
            }
        }
        for i in 0..h.rows {
            unsafe { dk.part(h.at(i), width) }.copy_from_slice(&dks[i * padded..][..width]);
            unsafe { dv.part(h.at(i), width) }.copy_from_slice(&dvs[i * padded..][..width]);
        }
    });
}
