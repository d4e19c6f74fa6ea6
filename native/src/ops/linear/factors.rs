//! The gradient of a weight as its two factors. Where the rows are few, x and dy are smaller than dy^T x, so the gradient
//! waits as them: its norm is found from products of rows with rows, and an update multiplies a strip of it in the cache
//! and uses it there. Who reads it as a tensor gets it as `grad_weight` computes it, bit by bit the same as the strips.

use super::kernel::{N, Tile};
use super::pack::Factor;
use super::product::{lanes, pack, pack_left};
use super::{amx, by_group, by_tile, grad_weight};
use crate::element::Dtype;
use crate::memory::Scratch;
use crate::tensor::Tensor;
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of a strip.
const STRIP: usize = 128 << 10;

/// x `[rows][c_in]` and dy `[rows][c_out]` of a gradient dy^T x. Both bf16: no parameter is, so no update changes them.
pub struct Factors {
    c: [usize; 2],
    x: Tensor,
    dy: Tensor,
}

impl Factors {
    /// The factors where they are smaller than their product.
    pub fn new(c: [usize; 2], x: &Tensor, dy: &Tensor) -> Option<Factors> {
        let pays = x.dtype == Dtype::Bf16 && 2 * (x.len + dy.len) < 4 * c[0] * c[1];
        pays.then(|| Factors { c, x: x.clone(), dy: dy.clone() })
    }
    /// Writes the whole gradient, `[c_out][c_in]`.
    pub fn fill(&self, dw: &mut [f32]) {
        grad_weight(self.c, self.x.of::<bf16>(), self.dy.of(), dw);
    }
    /// Whether both are gradients of linear layers on the same x.
    pub fn shares(&self, other: &Factors) -> bool {
        self.c[0] == other.c[0] && std::ptr::eq(self.x.of::<bf16>(), other.x.of())
    }
    /// Sum of squares of the gradients of layers that share x: of the products of x x^T and the sum of dy dy^T, value by
    /// value.
    pub fn sum_of_squares(layers: &[&Factors]) -> f64 {
        let Factors { c: [c_in, _], x, .. } = layers[0];
        let x = x.of::<bf16>();
        let slopes: Vec<_> = layers.iter().map(|f| (Factor::rows(f.dy.of(), f.c[1]), f.c[1])).collect();
        let rows = x.len() / c_in;
        by_tile!(bf16, G, R, tile => gram::<G, R>((Factor::rows(x, *c_in), *c_in), &slopes, rows, tile))
    }
    /// Calls `body` with every strip of the gradient and where it lies, after `soon` with parts of that; strips run in
    /// parallel.
    pub fn strips(&self, soon: impl Fn(Range<usize>) + Sync, body: impl Fn(Range<usize>, &[f32]) + Sync) {
        let ([c_in, c_out], x, dy) = (self.c, self.x.of::<bf16>(), self.dy.of::<bf16>());
        let (left, right) = (Factor::columns(dy, c_out), Factor::columns(x, c_in));
        by_tile!(bf16, G, R, tile => strips::<G, R>(left, right, self.c, x.len() / c_in, tile, &soon, &body))
    }
}

/// x and every dy, each with its width.
fn gram<const G: usize, const R: usize>(
    x: (Factor<bf16>, usize),
    slopes: &[(Factor<bf16>, usize)],
    rows: usize,
    tile: Tile,
) -> f64 {
    let packed = |&(f, width): &(Factor<bf16>, usize)| {
        let lanes = lanes::<G, R>(width);
        let mut left = Scratch::<u32>::new(rows.div_ceil(R) * lanes * R);
        let mut right = Scratch::<u32>::new(rows.div_ceil(N) * lanes * N);
        pack_left::<G, R, _>(f, 0..rows, 0..width, lanes, &mut left);
        pack::<G, N, _>(f, 0..rows, 0..width, lanes, &mut right);
        (left, right, lanes)
    };
    let (x, slopes) = ([packed(&x)], slopes.iter().map(packed).collect::<Vec<_>>());
    let mut total = 0.0;
    for (j, i) in (0..rows.div_ceil(N)).flat_map(|j| (0..rows.div_ceil(R)).map(move |i| (j * N, i * R))) {
        if i >= j + N {
            continue; // both are symmetric
        }
        let mut sums = [[0f32; amx::M * N]; 2]; // the tallest tile
        for (sums, factors) in sums.iter_mut().zip([&x[..], &slopes]) {
            for (at, (left, right, lanes)) in factors.iter().enumerate() {
                let (left, right) = (&left[i * lanes..], &right[j * lanes..]);
                unsafe { tile(left.as_ptr(), right.as_ptr(), *lanes, sums.as_mut_ptr(), at > 0) };
            }
        }
        for (at, (a, b)) in sums[0][..R * N].iter().zip(&sums[1]).enumerate() {
            let count = match (i + at / N).cmp(&(j + at % N)) {
                std::cmp::Ordering::Less => 2.0,
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Greater => 0.0,
            };
            total += count * *a as f64 * *b as f64;
        }
    }
    total.max(0.0)
}

fn strips<const G: usize, const R: usize>(
    left: Factor<bf16>,
    right: Factor<bf16>,
    [c_in, c_out]: [usize; 2],
    rows: usize,
    tile: Tile,
    soon: &(impl Fn(Range<usize>) + Sync),
    body: &(impl Fn(Range<usize>, &[f32]) + Sync),
) {
    let lanes = lanes::<G, R>(rows);
    let mut panels = Scratch::<u32>::new(c_in.div_ceil(N) * lanes * N);
    panels.par_chunks_mut(lanes * N).enumerate().for_each(|(i, panel)| {
        pack::<G, N, _>(right, i * N..c_in.min((i + 1) * N), 0..rows, lanes, panel);
    });
    let tall = (STRIP / 4 / c_in / R).max(1) * R;
    (0..c_out.div_ceil(tall)).into_par_iter().with_max_len(1).for_each(|strip| {
        let out = strip * tall..c_out.min((strip + 1) * tall);
        let mut packed = Scratch::<u32>::new(out.len().div_ceil(R) * lanes * R);
        pack_left::<G, R, _>(left, out.clone(), 0..rows, lanes, &mut packed);
        let mut values = Scratch::<f32>::new(out.len() * c_in);
        let part = |panel: usize| out.start * c_in + (out.len() * panel * N).min(values.len());
        let parts: Vec<_> = (0..c_in.div_ceil(N)).map(|panel| part(panel)..part(panel + 1)).collect();
        for ((panel, right), part) in panels.chunks_exact(lanes * N).enumerate().zip(parts) {
            soon(part);
            let (first, width) = (panel * N, N.min(c_in - panel * N));
            for (left, to) in packed.chunks_exact(lanes * R).zip(values.chunks_mut(R * c_in)) {
                let mut sums = [0f32; amx::M * N];
                unsafe { tile(left.as_ptr(), right.as_ptr(), lanes, sums.as_mut_ptr(), false) };
                for (to, sums) in to.chunks_exact_mut(c_in).zip(sums.chunks_exact(N)) {
                    to[first..first + width].copy_from_slice(&sums[..width]);
                }
            }
        }
        body(out.start * c_in..out.end * c_in, &values);
    });
}
