//! The CPU path: one task per output row (x axis). The taps that reach a voxel are pointers into the rows around it;
//! along x they only move, so a row is a few runs of voxels that share one list of taps. Taps that would read an
//! absent block are not on the list. Lanes run over channels.

use super::super::rows;
use super::Shape;
use crate::element::{Element, convert};
use crate::grid::Grid;
use rayon::prelude::*;

const LANES: usize = 16;

/// One axis: the taps (tap, source coordinate) of output coordinate `o`.
fn axis(up: bool, stride: usize, o: usize) -> impl Iterator<Item = (usize, i64)> {
    let (o, s) = (o as i64, stride as i64);
    (0..3i64).filter_map(move |t| {
        if !up {
            return Some((t as usize, o * s + t - 1));
        }
        ((o + 1 - t).rem_euclid(s) == 0).then(|| (t as usize, (o + 1 - t).div_euclid(s)))
    })
}

/// `count` output voxels from `x` on, `period` apart, whose sources move along.
#[derive(Clone, Copy)]
struct Run {
    x: usize,
    count: usize,
}

/// How a row of outputs reads a row of sources.
struct Pass {
    up: bool,
    stride: usize,
    /// Sides of a source block and an output block.
    from: [usize; 3],
    to: [usize; 3],
    c: usize,
    runs: Vec<Run>,
    /// Voxels between outputs and between sources of a run.
    period: usize,
    step: usize,
}

/// A source voxel and its tap.
type Tap<E> = (*const E, usize);

impl Pass {
    fn new(s: &Shape, up: bool) -> Pass {
        let (from, to) = if up { (s.coarse(), s.side) } else { (s.side, s.coarse()) };
        let (period, step) = if up { (s.stride, 1) } else { (1, s.stride) };
        let inside = |x: usize| axis(up, s.stride, x).all(|(_, i)| i >= 0 && i < from[2] as i64);
        let mut runs = Vec::new();
        for phase in 0..period {
            let mut x = phase;
            while x < to[2] {
                let inner = (x..to[2]).step_by(period).take_while(|&x| inside(x)).count();
                runs.push(Run { x, count: inner.max(1) });
                x += inner.max(1) * period;
            }
        }
        Pass { up, stride: s.stride, from, to, c: s.c, runs, period, step }
    }
    fn rows(&self, grid: &Grid) -> usize {
        grid.blocks.len() * self.to[0] * self.to[1]
    }
    /// Calls `body(run, taps of its first voxel)` for each run of output row `row` (block, z, y).
    fn each<E: Element>(&self, grid: &Grid, source: &[E], row: usize, mut body: impl FnMut(Run, &[Tap<E>])) {
        let [sz, sy, sx] = self.from;
        let (block, z, y) = (row / self.to[1] / self.to[0], row / self.to[1] % self.to[0], row % self.to[1]);
        let place = |i: i64, n: usize| {
            let n = n as i64;
            ((i.div_euclid(n) + 1) as usize, i.rem_euclid(n) as usize)
        };
        let mut taps: Vec<Tap<E>> = Vec::with_capacity(27);
        for &run in &self.runs {
            taps.clear();
            for (tz, iz) in axis(self.up, self.stride, z) {
                let (nz, iz) = place(iz, sz);
                for (ty, iy) in axis(self.up, self.stride, y) {
                    let (ny, iy) = place(iy, sy);
                    for (tx, ix) in axis(self.up, self.stride, run.x) {
                        let (nx, ix) = place(ix, sx);
                        let near = grid.neighbours[block][nz * 9 + ny * 3 + nx];
                        if near >= 0 {
                            let at = (((near as usize * sz + iz) * sy + iy) * sx + ix) * self.c;
                            let moves = (run.count - 1) * self.step * self.c;
                            taps.push((source[at..at + moves + self.c].as_ptr(), tz * 9 + ty * 3 + tx));
                        }
                    }
                }
            }
            body(run, &taps);
        }
    }
}

/// `[c][27]` -> `[27][c]`.
fn by_tap(w: &[f32], c: usize) -> Vec<f32> {
    (0..27 * c).map(|i| w[i % c * 27 + i / c]).collect()
}

/// y = bias + sum over taps of source * weight.
pub fn apply<E: Element>(s: &Shape, grid: &Grid, up: bool, x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    let (pass, w, c) = (Pass::new(s, up), by_tap(w, s.c), s.c);
    let zero = vec![0.0; c];
    let bias = bias.unwrap_or(&zero);
    y.par_chunks_mut(pass.to[2] * c).enumerate().for_each(|(row, y)| {
        rows::vectorised(|| {
            pass.each(grid, x, row, |run, taps| {
                for k in 0..run.count {
                    let y = &mut y[(run.x + k * pass.period) * c..][..c];
                    unsafe { voxel(taps, k * pass.step * c, &w, bias, y) };
                }
            });
        });
    });
}

/// One output voxel from the taps moved by `offset` values.
///
/// # Safety
/// Each tap points to `offset + y.len()` values.
#[inline(always)]
unsafe fn voxel<E: Element>(taps: &[Tap<E>], offset: usize, w: &[f32], bias: &[f32], y: &mut [E]) {
    let c = y.len();
    let whole = c / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sum: [f32; LANES] = std::array::from_fn(|i| bias[at + i]);
        for &(x, t) in taps {
            let x = unsafe { std::slice::from_raw_parts(x.add(offset + at), LANES) };
            let w = &w[t * c + at..][..LANES];
            (0..LANES).for_each(|i| sum[i] += x[i].to_f32() * w[i]);
        }
        convert(&sum, &mut y[at..at + LANES]);
    }
    for at in whole..c {
        let add = |sum: f32, &(x, t): &Tap<E>| sum + unsafe { *x.add(offset + at) }.to_f32() * w[t * c + at];
        y[at] = E::from_f32(taps.iter().fold(bias[at], add));
    }
}

/// dw[t] = sum over coarse voxels o of fine[s*o - 1 + t] * coarse[o]: f32 along a row, f64 over rows, in at most 64
/// stretches of rows and then those in turn, so that the order does not depend on the number of cores.
pub fn grad_weight<E: Element>(s: &Shape, grid: &Grid, fine: &[E], coarse: &[E], dw: &mut [f32]) {
    let (pass, c) = (Pass::new(s, false), s.c);
    let rows = pass.rows(grid);
    let stretch = rows.div_ceil(64).max(1);
    let partial: Vec<Vec<f64>> = (0..rows.div_ceil(stretch))
        .into_par_iter()
        .map(|part| {
            let mut sums = vec![0f64; 27 * c];
            let mut row_sums = vec![0f32; 27 * c];
            rows::vectorised(|| {
                for row in part * stretch..rows.min((part + 1) * stretch) {
                    row_sums.fill(0.0);
                    let dy = &coarse[row * pass.to[2] * c..][..pass.to[2] * c];
                    pass.each(grid, fine, row, |run, taps| unsafe { outer(&pass, run, taps, dy, &mut row_sums) });
                    sums.iter_mut().zip(&row_sums).for_each(|(s, v)| *s += *v as f64);
                }
            });
            sums
        })
        .collect();
    for (i, value) in dw.iter_mut().enumerate() {
        *value = partial.iter().map(|p| p[i % 27 * c + i / 27]).sum::<f64>() as f32;
    }
}

/// sums[t][c] += source * dy over the voxels of a run.
///
/// # Safety
/// Each tap points to the values of the whole run.
#[inline(always)]
unsafe fn outer<E: Element>(pass: &Pass, run: Run, taps: &[Tap<E>], dy: &[E], sums: &mut [f32]) {
    let c = pass.c;
    let mut at = 0;
    while at < c {
        let lanes = LANES.min(c - at);
        for k in 0..run.count {
            let dy = &dy[(run.x + k) * c + at..][..lanes];
            for &(x, t) in taps {
                let x = unsafe { std::slice::from_raw_parts(x.add(k * pass.step * c + at), lanes) };
                let sums = &mut sums[t * c + at..][..lanes];
                if lanes == LANES {
                    (0..LANES).for_each(|i| sums[i] += x[i].to_f32() * dy[i].to_f32());
                } else {
                    (0..lanes).for_each(|i| sums[i] += x[i].to_f32() * dy[i].to_f32());
                }
            }
        }
        at += lanes;
    }
}
