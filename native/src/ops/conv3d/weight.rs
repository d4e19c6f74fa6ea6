//! Gradient of the weight: an outer product summed over voxels, for f32 values one voxel at a time, for bf16 two
//! neighbouring voxels of a line per multiplication (`pairs`).
//!
//! Units run in at most eight stretches of fixed extent side by side, and those are added in turn, so that the sums
//! have one order whatever the number of cores.

use super::direct::Shared;
use super::gather::{Input, Lent, Part, children, extent, gathered_lines, rows_as, tap_offsets, unit_input, units_of};
use super::kernels::Operand;
use super::{Shape, tile};
use crate::element::Element;
use crate::grid::Grid;
use crate::memory::Scratch;
use crate::ops::rows;
use crate::wide;
use half::bf16;
use rayon::prelude::*;

/// Bytes of rows that stay in the L2 cache.
const ROWS: usize = 256 << 10;

/// Operands of one unit: sums[tap][i][j] += sum over v of a[bases[v] + taps[tap] + i] * rows[v][j].
pub struct Factors<'a, L> {
    pub a: Lent<'a, L>,
    pub bases: Vec<u32>,
    pub taps: Vec<u32>,
    pub rows: Lent<'a, L>,
}

/// Operands whose outer products make up a weight gradient.
pub trait Outer: Operand {
    /// Operands of a unit of a convolution.
    fn factors<'a, E: Element>(
        s: &Shape,
        grid: &Grid,
        x: &'a [E],
        dy: &'a [E],
        unit: &[Part],
    ) -> Factors<'a, Self::Lane>;

    /// Lines of `n` voxels with `c` channels as operands, one after the other.
    fn lines<'a, E: Element>(x: &'a [E], c: usize, n: usize) -> Lent<'a, Self::Lane>;

    /// The 2x2x2 children of planes of `coarse` (y, x) voxels, in whole planes with `c` channels: values, where the first child of each operand
    /// of `lines` of the coarse voxels lies, and the others from there.
    fn children<'a, E: Element>(
        fine: &'a [E],
        c: usize,
        coarse: [usize; 2],
    ) -> (Lent<'a, Self::Lane>, Vec<u32>, Vec<u32>);
}

impl Outer for f32 {
    fn factors<'a, E: Element>(s: &Shape, grid: &Grid, x: &'a [E], dy: &'a [E], unit: &[Part]) -> Factors<'a, f32> {
        let (first, voxels) = extent(unit, s.side);
        let rows = rows_as(&dy[first * s.c_out..][..voxels * s.c_out], s.c_out, s.c_out);
        if s.kernel == 1 {
            let a = rows_as(&x[first * s.c_in..][..voxels * s.c_in], s.c_in, s.c_in);
            let bases = (0..voxels).map(|v| (v * s.c_in) as u32).collect();
            return Factors { a, bases, taps: vec![0], rows };
        }
        let (input, bases) = unit_input::<E, f32>(s, grid, x, unit);
        let taps = tap_offsets(gathered_lines(s, unit), s.side[2] * s.stride + 2, s.c_in);
        Factors { a: Lent::Copied(input), bases, taps, rows }
    }
    fn lines<'a, E: Element>(x: &'a [E], c: usize, _n: usize) -> Lent<'a, f32> {
        rows_as(x, c, c)
    }
    fn children<'a, E: Element>(fine: &'a [E], c: usize, [y, x]: [usize; 2]) -> (Lent<'a, f32>, Vec<u32>, Vec<u32>) {
        let planes = fine.len() / (8 * y * x * c);
        let (bases, taps) = children([planes, y, x], c);
        (rows_as(fine, c, c), bases, taps.to_vec())
    }
}

/// One line of `n` voxels as pairs of neighbours: `[ceil(n / 2)][c]`; `step` voxels lie between neighbours, and a
/// missing second one is zero.
#[inline(always)]
fn pair_line(line: &[bf16], c: usize, n: usize, step: usize, out: &mut [u32]) {
    for (q, out) in out.chunks_exact_mut(c).enumerate() {
        let low = &line[2 * q * step * c..][..c];
        if 2 * q + 1 < n {
            let high = &line[(2 * q + 1) * step * c..][..c];
            for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
                *out = low.to_bits() as u32 | (high.to_bits() as u32) << 16;
            }
        } else {
            out.iter_mut().zip(low).for_each(|(out, low)| *out = low.to_bits() as u32);
        }
    }
}

impl Outer for bf16 {
    fn factors<'a, E: Element>(s: &Shape, grid: &Grid, x: &'a [E], dy: &'a [E], unit: &[Part]) -> Factors<'a, u32> {
        let (first, voxels) = extent(unit, s.side);
        let dy = &dy[first * s.c_out..][..voxels * s.c_out];
        if s.kernel == 1 {
            let a = Self::lines(&x[first * s.c_in..][..voxels * s.c_in], s.c_in, voxels);
            let bases = (0..voxels.div_ceil(2)).map(|q| (q * s.c_in) as u32).collect();
            return Factors { a, bases, taps: vec![0], rows: Self::lines(dy, s.c_out, voxels) };
        }
        let (sx, c) = (s.side[2], s.c_in);
        let pairs = sx.div_ceil(2);
        let side = s.side.map(|v| v * s.stride);
        let input = Input { x, grid, side, c, padded: c };
        let (wy, wx) = (gathered_lines(s, unit), side[2] + 2);
        // [line][tap along x][pair][c]
        let line_len = 3 * pairs * c;
        let lines = |p: &Part| ((p.planes() - 1) * s.stride + 3) * wy;
        let mut a = Scratch::<u32>::new(unit.iter().map(lines).sum::<usize>() * line_len);
        let mut bases = Vec::with_capacity(voxels / sx * pairs);
        let mut line = vec![bf16::ZERO; wx * c];
        let mut at = 0;
        for part in unit {
            let len = lines(part) * line_len;
            let (z0, y0) = ((part.z0 * s.stride) as i64 - 1, (part.y0 * s.stride) as i64 - 1);
            rows::vectorised(|| {
                for (i, out) in a[at..at + len].chunks_exact_mut(line_len).enumerate() {
                    input.line(part.block, z0 + (i / wy) as i64, y0 + (i % wy) as i64, &mut line);
                    for (tap, out) in out.chunks_exact_mut(pairs * c).enumerate() {
                        pair_line(&line[tap * c..], c, sx, s.stride, out);
                    }
                }
            });
            for i in 0..part.planes() * part.lines() {
                let start = at + (i / part.lines() * wy + i % part.lines()) * s.stride * line_len;
                bases.extend((0..pairs).map(|q| (start + q * c) as u32));
            }
            at += len;
        }
        let taps = (0..27).map(|t| ((t / 9 * wy + t / 3 % 3) * line_len + t % 3 * pairs * c) as u32).collect();
        Factors { a: Lent::Copied(a), bases, taps, rows: Self::lines(dy, s.c_out, sx) }
    }
    fn lines<'a, E: Element>(x: &'a [E], c: usize, n: usize) -> Lent<'a, u32> {
        let pairs = n.div_ceil(2);
        let x = rows_as::<E, bf16>(x, c, c);
        let mut out = Scratch::<u32>::new(x.len() / (n * c) * pairs * c);
        rows::vectorised(|| {
            for (out, line) in out.chunks_exact_mut(pairs * c).zip(x.chunks_exact(n * c)) {
                pair_line(line, c, n, 1, out);
            }
        });
        Lent::Copied(out)
    }
    fn children<'a, E: Element>(fine: &'a [E], c: usize, [y, x]: [usize; 2]) -> (Lent<'a, u32>, Vec<u32>, Vec<u32>) {
        let fine = rows_as::<E, bf16>(fine, c, c);
        let (planes, pairs) = (fine.len() / (8 * y * x * c), x.div_ceil(2));
        let (lines, line) = (planes * y, pairs * c);
        let mut out = Scratch::<u32>::new(8 * lines * line); // [child][line][pair][c]
        rows::vectorised(|| {
            for i in 0..lines {
                for child in 0..8 {
                    let (z, y) = (2 * (i / y) + (child >> 2), y * 2);
                    let from = ((z * y + 2 * (i % (y / 2)) + (child >> 1 & 1)) * 2 * x + (child & 1)) * c;
                    pair_line(&fine[from..], c, x, 2, &mut out[(child * lines + i) * line..][..line]);
                }
            }
        });
        let bases = (0..planes * y * pairs).map(|q| (q * c) as u32).collect();
        let taps = (0..8).map(|child| (child * lines * line) as u32).collect();
        (Lent::Copied(out), bases, taps)
    }
}

/// dw = sum over output voxels of x at the tap times dy.
pub fn grad_weight<E: Element, O: Outer>(s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    let units = units_of(s, grid.blocks.len());
    if s.kernel == 1 && s.c_out < s.c_in {
        // The wider rows fill the vectors: one output channel leaves most of a vector empty.
        let turned = Shape { c_in: s.c_out, c_out: s.c_in, ..*s };
        let sums = sum_units(&units, s.weight_len(), |unit, sums| {
            add_outer::<O>(&O::factors(&turned, grid, dy, x, unit), s.c_out, s.c_in, sums);
        });
        return dw.copy_from_slice(&sums);
    }
    // [tap][c_in][c_out]
    let sums = sum_units(&units, s.weight_len(), |unit, sums| {
        add_outer::<O>(&O::factors(s, grid, x, dy, unit), s.c_in, s.c_out, sums);
    });
    put(&sums, [s.taps(), s.c_in, s.c_out], dw);
}

/// `[taps][inner][outer]` as `[outer][inner][taps]`, in strips of a cache line of outer channels.
pub fn put(sums: &[f32], [taps, inner, outer]: [usize; 3], dw: &mut [f32]) {
    dw.par_chunks_mut(16 * inner * taps).enumerate().for_each(|(strip, out)| {
        for i in 0..inner {
            for t in 0..taps {
                let row = &sums[(t * inner + i) * outer + 16 * strip..];
                for (j, value) in row.iter().enumerate().take(out.len() / (inner * taps)) {
                    out[(j * inner + i) * taps + t] = *value;
                }
            }
        }
    });
}

/// Sums of `len` values over `units`.
pub fn sum_units<U: Sync>(units: &[U], len: usize, add: impl Fn(&U, &mut [f32]) + Sync) -> Scratch<f32> {
    let stretch = units.len().div_ceil(8).max(1);
    let mut partial: Vec<Scratch<f32>> = units
        .par_chunks(stretch)
        .map(|units| {
            let mut sums = Scratch::<f32>::zeros(len);
            units.iter().for_each(|unit| add(unit, &mut sums));
            sums
        })
        .collect();
    if partial.is_empty() {
        return Scratch::zeros(len);
    }
    let mut sums = partial.remove(0);
    rows::each(&mut sums, |at, sums| {
        for part in &partial {
            sums.iter_mut().zip(&part[at..]).for_each(|(s, p)| *s += p);
        }
    });
    sums
}

/// Adds the products of one unit, shared among the cores by 8 pairs of tap and row i; as many voxels at a time as have their rows
/// in the L2 cache, which all tasks read.
pub fn add_outer<O: Operand>(f: &Factors<O::Lane>, c: usize, width: usize, sums: &mut [f32]) {
    let reach = *f.taps.iter().max().unwrap_or(&0) as usize + c;
    assert!(f.bases.iter().all(|&b| b as usize + reach <= f.a.len()) && f.rows.len() >= f.bases.len() * width);
    assert!(sums.len() >= f.taps.len() * c * width);
    let out = Shared(sums.as_mut_ptr());
    let places: Vec<u32> = f.taps.iter().flat_map(|tap| (0..c as u32).map(move |i| tap + i)).collect();
    let step = (ROWS / (width * size_of::<O::Lane>())).max(64);
    for (part, bases) in f.bases.chunks(step).enumerate() {
        let rows = &f.rows[part * step * width..];
        if unsafe { O::outer_by_registers(&f.a, bases, &f.taps, rows, [c, width], &out) } {
            continue;
        }
        places.par_chunks(8).enumerate().for_each(|(task, places)| unsafe {
            tile::outer::<O>(f.a.as_ptr(), bases, places, rows.as_ptr(), width, out.at(8 * task * width));
        });
    }
}

/// Channels whose sums stay in registers over a stretch of rows.
const STRIP: usize = 32;

wide! {
    /// Adds rows.
    pub fn add_rows<E: Element>(x: &[E], sum: &mut [f64]) {
        let c = sum.len();
        for near in x.chunks(rows::near::<E>(c) * c) {
            for (first, sum) in (0..c).step_by(STRIP).zip(sum.chunks_mut(STRIP)) {
                let Ok(sums) = <&mut [f64; STRIP]>::try_from(&mut *sum) else {
                    for row in near.chunks_exact(c) {
                        sum.iter_mut().zip(&row[first..]).for_each(|(sum, v)| *sum += v.to_f32() as f64);
                    }
                    continue;
                };
                let mut total = *sums;
                for row in near.chunks_exact(c) {
                    let row: &[E; STRIP] = row[first..first + STRIP].try_into().expect("STRIP channels");
                    rows::soon(row.as_ptr());
                    for i in 0..STRIP {
                        total[i] += row[i].to_f32() as f64;
                    }
                }
                *sums = total;
            }
        }
    }
}

/// Sum over rows, in a fixed order: those of pieces, then these in turn.
pub fn sum_rows<E: Element>(values: &[E], c: usize, out: &mut [f32]) {
    let pieces = rows::pieces(&[0, values.len() / c], c);
    let sums = rows::sums(&pieces, 1, c, |piece, sum| add_rows(&values[piece.rows.start * c..piece.rows.end * c], sum));
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
}
