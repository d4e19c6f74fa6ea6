//! The CPU path: one task per stretch of windows, heads in turn; all scores of a head stay in the second cache.

use super::Shape;
use crate::element::{Element, convert};
use crate::ops::activation::exp;
use crate::ops::rows::vectorised;
use crate::ops::tile::{Strides, product};
use rayon::prelude::*;

/// What the heads of a window share, sized for whole tiles: m rows, n columns, d channels.
struct Head<'a> {
    s: &'a Shape,
    m: usize,
    n: usize,
    d: usize,
}

impl<'a> Head<'a> {
    fn new(s: &'a Shape) -> Head<'a> {
        Head { s, m: s.tokens.next_multiple_of(8), n: s.tokens.next_multiple_of(16), d: s.width.next_multiple_of(16) }
    }
    /// Part (0 q, 1 k, 2 v) `[rows][d]` of a window's qkv, times `factor`, zero beyond the tokens.
    fn pack<E: Element>(&self, qkv: &[E], part: usize, head: usize, rows: usize, factor: f32) -> Vec<f32> {
        let (c, width) = (self.s.channels(), self.s.width);
        let mut out = vec![0f32; rows * self.d];
        for (i, out) in out.chunks_exact_mut(self.d).enumerate().take(self.s.tokens) {
            let row = &qkv[(3 * i + part) * c + head * width..][..width];
            out.iter_mut().zip(row).for_each(|(o, v)| *o = v.to_f32() * factor);
        }
        out
    }
    /// `[n][d]` -> `[width][n]`.
    fn transposed(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; self.s.width * self.n];
        for (i, row) in rows.chunks_exact(self.d).enumerate() {
            (0..self.s.width).for_each(|d| out[d * self.n + i] = row[d]);
        }
        out
    }
    /// Softmax of the scores of a head in a window, `[m][n]`, zero beyond the tokens.
    fn shares(&self, q: &[f32], kt: &[f32], bias: &[f32], regions: Option<&[u8]>) -> Vec<f32> {
        let (n, live) = (self.n, self.s.tokens);
        let mut scores = vec![0f32; self.m * n];
        let left = Strides { row: self.d, column: 1 };
        product([self.m, n, self.s.width], q, left, kt, n, &mut scores, n, false);
        vectorised(|| {
            for (i, (row, bias)) in scores.chunks_exact_mut(n).zip(bias.chunks_exact(n)).enumerate() {
                row.iter_mut().zip(bias).for_each(|(s, b)| *s += b);
                if let Some(regions) = regions {
                    let own = regions[i];
                    row.iter_mut().zip(regions).for_each(|(s, r)| *s -= if *r == own { 0.0 } else { 100.0 });
                }
                soften(&mut row[..live]);
                row[live..].fill(0.0);
            }
        });
        scores
    }
}

/// Softmax in place.
#[inline(always)]
fn soften(row: &mut [f32]) {
    let top = row.iter().fold(f32::MIN, |a, b| a.max(*b));
    let mut lanes = [0f32; 16];
    let mut parts = row.chunks_exact_mut(16);
    for part in &mut parts {
        for (v, lane) in part.iter_mut().zip(&mut lanes) {
            *v = exp(*v - top);
            *lane += *v;
        }
    }
    for (v, lane) in parts.into_remainder().iter_mut().zip(&mut lanes) {
        *v = exp(*v - top);
        *lane += *v;
    }
    let share = 1.0 / lanes.iter().sum::<f32>();
    row.iter_mut().for_each(|v| *v *= share);
}

/// The bias of every pair of each head: `[head][token][n]`.
fn biases(s: &Shape, table: &[f32]) -> Vec<Vec<f32>> {
    let n = s.tokens.next_multiple_of(16);
    let places: Vec<usize> = (0..s.tokens).map(|i| s.place(i)).collect();
    (0..s.heads)
        .into_par_iter()
        .map(|head| {
            let mut out = vec![0f32; s.tokens * n];
            for (row, i) in out.chunks_exact_mut(n).zip(&places) {
                let from = i + s.centre();
                row.iter_mut().zip(&places).for_each(|(b, j)| *b = table[(from - j) * s.heads + head]);
            }
            out
        })
        .collect()
}

/// y.
pub fn forward<E: Element>(s: &Shape, qkv: &[E], table: &[f32], y: &mut [E]) {
    let (h, biases) = (Head::new(s), biases(s, table));
    let (c, scale) = (s.channels(), 1.0 / (s.width as f32).sqrt());
    let inputs = qkv.par_chunks(3 * s.tokens * c);
    y.par_chunks_mut(s.tokens * c).zip(inputs).enumerate().for_each(|(window, (y, qkv))| {
        for (head, bias) in biases.iter().enumerate() {
            let kt = h.transposed(&h.pack(qkv, 1, head, h.n, 1.0));
            let v = h.pack(qkv, 2, head, h.n, 1.0);
            let p = h.shares(&h.pack(qkv, 0, head, h.m, scale), &kt, bias, s.regions_of(window));
            let mut out = vec![0f32; h.m * h.d];
            product([h.m, h.d, h.n], &p, Strides { row: h.n, column: 1 }, &v, h.d, &mut out, h.d, false);
            for (y, out) in y.chunks_exact_mut(c).zip(out.chunks_exact(h.d)) {
                convert(&out[..s.width], &mut y[head * s.width..][..s.width]);
            }
        }
    });
}

/// dqkv and dtable; the table's sum runs over at most 64 stretches of windows, so that its order is fixed.
pub fn backward<E: Element>(s: &Shape, qkv: &[E], table: &[f32], dy: &[E], dqkv: &mut [E], dtable: &mut [f32]) {
    let (h, biases) = (Head::new(s), biases(s, table));
    let (c, stretch) = (s.channels(), s.windows.div_ceil(64));
    let size = s.tokens * c;
    let partial: Vec<Vec<f32>> = dqkv
        .par_chunks_mut(3 * size * stretch)
        .enumerate()
        .map(|(part, dqkv)| {
            let mut sums = vec![0f32; s.heads * s.entries()];
            for (i, dqkv) in dqkv.chunks_exact_mut(3 * size).enumerate() {
                let window = part * stretch + i;
                let (qkv, dy) = (&qkv[3 * window * size..][..3 * size], &dy[window * size..][..size]);
                for ((head, bias), sums) in biases.iter().enumerate().zip(sums.chunks_exact_mut(s.entries())) {
                    head_backward(&h, head, s.regions_of(window), qkv, bias, dy, dqkv, sums);
                }
            }
            sums
        })
        .collect();
    for (i, value) in dtable.iter_mut().enumerate() {
        let at = i % s.heads * s.entries() + i / s.heads;
        *value = partial.iter().map(|p| p[at] as f64).sum::<f64>() as f32;
    }
}

/// One head of one window: writes its part of dqkv, adds to its sums of the table's gradient.
#[allow(clippy::too_many_arguments)]
fn head_backward<E: Element>(
    h: &Head,
    head: usize,
    regions: Option<&[u8]>,
    qkv: &[E],
    bias: &[f32],
    dy: &[E],
    dqkv: &mut [E],
    sums: &mut [f32],
) {
    let Head { s, m, n, d } = *h;
    let (c, scale) = (s.channels(), 1.0 / (s.width as f32).sqrt());
    let (q, k, v) = (h.pack(qkv, 0, head, m, scale), h.pack(qkv, 1, head, n, 1.0), h.pack(qkv, 2, head, n, 1.0));
    let mut g = vec![0f32; m * d];
    for (g, dy) in g.chunks_exact_mut(d).zip(dy.chunks_exact(c)) {
        convert(&dy[head * s.width..][..s.width], &mut g[..s.width]);
    }
    let p = h.shares(&q, &h.transposed(&k), bias, regions);
    let (across, over, down) =
        (Strides { row: d, column: 1 }, Strides { row: n, column: 1 }, Strides { row: 1, column: n });
    let mut ds = vec![0f32; m * n];
    product([m, n, s.width], &g, across, &h.transposed(&v), n, &mut ds, n, false);
    vectorised(|| {
        for (p, ds) in p.chunks_exact(n).zip(ds.chunks_exact_mut(n)) {
            let mut lanes = [0f32; 16];
            for (p, ds) in p.chunks_exact(16).zip(ds.chunks_exact(16)) {
                (0..16).for_each(|i| lanes[i] += p[i] * ds[i]);
            }
            let mean = lanes.iter().sum::<f32>();
            p.iter().zip(ds).for_each(|(p, ds)| *ds = p * (*ds - mean));
        }
    });
    let places: Vec<usize> = (0..s.tokens).map(|i| s.place(i)).collect();
    for (i, row) in places.iter().zip(ds.chunks_exact(n)) {
        let from = i + s.centre();
        places.iter().zip(row).for_each(|(j, v)| sums[from - j] += v);
    }
    let (mut dq, mut dk, mut dv) = (vec![0f32; m * d], vec![0f32; n * d], vec![0f32; n * d]);
    product([m, d, n], &ds, over, &k, d, &mut dq, d, false);
    product([n, d, m], &ds, down, &q, d, &mut dk, d, false);
    product([n, d, m], &p, down, &g, d, &mut dv, d, false);
    for (part, (values, factor)) in [(dq, scale), (dk, 1.0), (dv, 1.0)].into_iter().enumerate() {
        for (i, row) in values.chunks_exact(d).enumerate().take(s.tokens) {
            let out = &mut dqkv[(3 * i + part) * c + head * s.width..][..s.width];
            out.iter_mut().zip(row).for_each(|(o, v)| *o = E::from_f32(v * factor));
        }
    }
}
