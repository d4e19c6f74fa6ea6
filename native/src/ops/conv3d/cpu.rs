//! The CPU path: every member of the convolution family is one of two inner loops over gathered rows (`kernels`).
//!
//! A unit of work is a few z planes of one block (or several small blocks): its input with a one-voxel halo is
//! gathered once into a scratch that fits the L2 cache; then each tap of the kernel is only a pointer offset.
//! Units run on all cores; the weight gradient sums them in at most eight stretches of fixed extent, so that the sums
//! have one order whatever the number of cores.

use super::kernels::{self, Packed};
use super::winograd::{self, Direction};
use super::{Shape, Up};
use crate::grid::Grid;
use rayon::prelude::*;
use std::cell::RefCell;

/// Voxels of a unit whose input is gathered with a halo.
const GATHERED: usize = 4096;
/// Voxels of a unit that is read in place: smaller, so that short matrices still feed all cores.
const IN_PLACE: usize = 512;

/// A pointer that tasks may share because they write disjoint places.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}
impl Shared {
    fn at(&self) -> *mut f32 {
        self.0
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Planes `z0..z1` of one block.
#[derive(Clone, Copy)]
struct Part {
    block: usize,
    z0: usize,
    z1: usize,
}

/// Splits all blocks of side `side` into units of about `voxels` voxels.
fn units(blocks: usize, side: [usize; 3], voxels: usize) -> Vec<Vec<Part>> {
    let plane = side[1] * side[2];
    let planes = (voxels / plane).clamp(1, side[0]).max(2.min(side[0]));
    let mut list: Vec<Vec<Part>> = Vec::new();
    let mut filled = usize::MAX;
    for block in 0..blocks {
        for z0 in (0..side[0]).step_by(planes) {
            let part = Part { block, z0, z1: (z0 + planes).min(side[0]) };
            if filled.saturating_add((part.z1 - z0) * plane) > voxels / 4 {
                list.push(Vec::new());
                filled = 0;
            }
            filled += (part.z1 - z0) * plane;
            list.last_mut().expect("pushed above").push(part);
        }
    }
    list
}

/// Copies planes `z0-1 ..= z1` (`planes` of them) of a block with a one-voxel halo on y and x; absent blocks are zero.
#[allow(clippy::too_many_arguments)]
fn gather(
    x: &[f32],
    grid: &Grid,
    side: [usize; 3],
    c: usize,
    block: usize,
    z_first: i64,
    planes: usize,
    out: &mut [f32],
) {
    let [sz, sy, sx] = side;
    let (wy, wx) = (sy + 2, sx + 2);
    let volume = sz * sy * sx * c;
    let axis = |p: i64, s: usize| -> (usize, usize) {
        if p < 0 {
            (0, (p + s as i64) as usize)
        } else if p >= s as i64 {
            (2, p as usize - s)
        } else {
            (1, p as usize)
        }
    };
    for (i, plane) in out.chunks_exact_mut(wy * wx * c).take(planes).enumerate() {
        let (nz, z) = axis(z_first + i as i64, sz);
        for (j, row) in plane.chunks_exact_mut(wx * c).enumerate() {
            let (ny, y) = axis(j as i64 - 1, sy);
            let source = |nx: usize, at: usize, n: usize| -> Option<&[f32]> {
                let b = grid.neighbours[block][nz * 9 + ny * 3 + nx];
                (b >= 0).then(|| {
                    let start = b as usize * volume + ((z * sy + y) * sx + at) * c;
                    &x[start..start + n * c]
                })
            };
            let mut put = |at: usize, n: usize, from: Option<&[f32]>| match from {
                Some(values) => row[at * c..(at + n) * c].copy_from_slice(values),
                None => row[at * c..(at + n) * c].fill(0.0),
            };
            put(0, 1, source(0, sx - 1, 1));
            put(1, sx, source(1, 0, sx));
            put(sx + 1, 1, source(2, 0, 1));
        }
    }
}

/// Gathers the input of a unit and lists where each output voxel's taps start. Returns values per part.
fn gather_unit(s: &Shape, grid: &Grid, x: &[f32], unit: &[Part], scratch: &mut Vec<f32>, bases: &mut Vec<u32>) {
    let side = s.side.map(|v| v * s.stride);
    let (wy, wx) = (side[1] + 2, side[2] + 2);
    bases.clear();
    let mut at = 0;
    for part in unit {
        let planes = (part.z1 - part.z0 - 1) * s.stride + 3;
        let len = planes * wy * wx * s.c_in;
        if scratch.len() < at + len {
            scratch.resize(at + len, 0.0);
        }
        let first = (part.z0 * s.stride) as i64 - 1;
        gather(x, grid, side, s.c_in, part.block, first, planes, &mut scratch[at..at + len]);
        for z in 0..part.z1 - part.z0 {
            for y in 0..s.side[1] {
                for v in 0..s.side[2] {
                    bases.push((at + ((z * s.stride * wy + y * s.stride) * wx + v * s.stride) * s.c_in) as u32);
                }
            }
        }
        at += len;
    }
}

fn tap_offsets(wy: usize, wx: usize, c: usize) -> Vec<u32> {
    (0..27).map(|t| (((t / 9 * wy + t / 3 % 3) * wx + t % 3) * c) as u32).collect()
}

/// y = conv(x) + bias.
pub fn forward(s: &Shape, grid: &Grid, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    if let Some(operands) = winograd::choose::<f32>(s, grid, Direction::Forward) {
        return winograd::forward(operands, s, grid, x, w, bias, y);
    }
    let taps: Vec<usize> = (0..s.taps()).collect();
    let n = s.taps();
    let packed = Packed::new(s.c_in, s.c_out, &taps, |co, ci, t| w[(co * s.c_in + ci) * n + t]);
    run_direct(s, grid, x, &packed, bias, y);
}

/// One direct convolution of shape `s` with packed weights over all units.
fn run_direct(s: &Shape, grid: &Grid, x: &[f32], packed: &Packed, bias: Option<&[f32]>, y: &mut [f32]) {
    let out = Shared(y.as_mut_ptr());
    let plane = s.side[1] * s.side[2];
    let size = if s.kernel == 1 { IN_PLACE } else { GATHERED };
    units(grid.blocks.len(), s.side, size).par_iter().for_each(|unit| {
        let start = (unit[0].block * s.out_voxels() + unit[0].z0 * plane) * s.c_out;
        SCRATCH.with_borrow_mut(|scratch| {
            let mut bases = Vec::new();
            let (values, offsets): (&[f32], Vec<u32>) = if s.kernel == 1 {
                let voxels: usize = unit.iter().map(|p| (p.z1 - p.z0) * plane).sum();
                bases.extend((0..voxels).map(|v| (v * s.c_in) as u32));
                let from = (unit[0].block * s.out_voxels() + unit[0].z0 * plane) * s.c_in;
                (&x[from..from + voxels * s.c_in], vec![0])
            } else {
                gather_unit(s, grid, x, unit, scratch, &mut bases);
                (scratch, tap_offsets(s.side[1] * s.stride + 2, s.side[2] * s.stride + 2, s.c_in))
            };
            let outs: Vec<u32> = (0..bases.len()).map(|v| (v * s.c_out) as u32).collect();
            unsafe { kernels::direct(values, &bases, &offsets, packed, bias, out.at().add(start), &outs) };
        });
    });
}

/// dx from dy: stride 1 is the forward loop with flipped weights; stride 2 is one such loop per parity of the input
/// voxel, each with the taps that reach it.
pub fn grad_input(s: &Shape, grid: &Grid, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    if let Some(operands) = winograd::choose::<f32>(s, grid, Direction::GradInput) {
        return winograd::grad_input(operands, s, grid, dy, w, dx);
    }
    let n = s.taps();
    let back = Shape { side: s.side, c_in: s.c_out, c_out: s.c_in, kernel: s.kernel, stride: 1 };
    if s.stride == 1 {
        let taps: Vec<usize> = (0..n).collect();
        let packed = Packed::new(s.c_out, s.c_in, &taps, |ci, co, t| w[(co * s.c_in + ci) * n + n - 1 - t]);
        return run_direct(&back, grid, dy, &packed, None, dx);
    }
    // Per axis and parity: (tap, offset of the output voxel in the halo scratch).
    const REACH: [&[(usize, usize)]; 2] = [&[(1, 1)], &[(0, 2), (2, 1)]];
    let (wy, wx) = (s.side[1] + 2, s.side[2] + 2);
    let classes: Vec<(Packed, Vec<u32>)> = (0..8)
        .map(|p| {
            let (mut taps, mut offsets) = (Vec::new(), Vec::new());
            for &(tz, oz) in REACH[p >> 2] {
                for &(ty, oy) in REACH[p >> 1 & 1] {
                    for &(tx, ox) in REACH[p & 1] {
                        taps.push(tz * 9 + ty * 3 + tx);
                        offsets.push((((oz * wy + oy) * wx + ox) * s.c_out) as u32);
                    }
                }
            }
            (Packed::new(s.c_out, s.c_in, &taps, |ci, co, t| w[(co * s.c_in + ci) * n + t]), offsets)
        })
        .collect();
    let out = Shared(dx.as_mut_ptr());
    let [_, sy, sx] = s.side;
    units(grid.blocks.len(), s.side, GATHERED).par_iter().for_each(|unit| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut bases = Vec::new();
            gather_unit(&back, grid, dy, unit, scratch, &mut bases);
            for (p, (packed, offsets)) in classes.iter().enumerate() {
                let mut outs = Vec::with_capacity(bases.len());
                for part in unit {
                    for z in part.z0..part.z1 {
                        for v in 0..sy * sx {
                            let (z, y, x) = (2 * z + (p >> 2), 2 * (v / sx) + (p >> 1 & 1), 2 * (v % sx) + (p & 1));
                            let block = (part.block - unit[0].block) * s.in_voxels();
                            outs.push(((block + (z * 2 * sy + y) * 2 * sx + x) * s.c_in) as u32);
                        }
                    }
                }
                let target = unsafe { out.at().add(unit[0].block * s.in_voxels() * s.c_in) };
                unsafe { kernels::direct(scratch, &bases, offsets, packed, None, target, &outs) };
            }
        });
    });
}

/// Sums of `len` values over `units`: at most eight equal stretches side by side, then those in turn, so that the
/// order of the sum does not depend on the number of cores.
fn sum_units<U: Sync>(units: &[U], len: usize, add: impl Fn(&U, &mut Stretch, &mut [f32]) + Sync) -> Vec<f32> {
    let stretch = units.len().div_ceil(8).max(1);
    let partial: Vec<Vec<f32>> = units
        .par_chunks(stretch)
        .map(|units| {
            let (mut sums, mut scratch) = (vec![0f32; len], Stretch::default());
            units.iter().for_each(|unit| add(unit, &mut scratch, &mut sums));
            sums
        })
        .collect();
    let mut partial = partial.into_iter();
    let mut sums = partial.next().unwrap_or_else(|| vec![0f32; len]);
    partial.for_each(|part| sums.iter_mut().zip(part).for_each(|(s, p)| *s += p));
    sums
}

/// What one stretch of units reuses.
#[derive(Default)]
struct Stretch {
    values: Vec<f32>,
    bases: Vec<u32>,
}

/// dw = sum over output voxels of x at the tap times dy.
pub fn grad_weight(s: &Shape, grid: &Grid, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    if let Some(operands) = winograd::choose::<f32>(s, grid, Direction::GradWeight) {
        return winograd::grad_weight(operands, s, grid, x, dy, dw);
    }
    let plane = s.side[1] * s.side[2];
    let units = units(grid.blocks.len(), s.side, GATHERED);
    // [tap][c_in][c_out]
    let sums = sum_units(&units, s.weight_len(), |unit, Stretch { values, bases }, sums| {
        let start = unit[0].block * s.out_voxels() + unit[0].z0 * plane;
        let voxels: usize = unit.iter().map(|p| (p.z1 - p.z0) * plane).sum();
        let rows = &dy[start * s.c_out..(start + voxels) * s.c_out];
        let (from, offsets): (&[f32], Vec<u32>) = if s.kernel == 1 {
            bases.clear();
            bases.extend((0..voxels).map(|v| (v * s.c_in) as u32));
            (&x[start * s.c_in..(start + voxels) * s.c_in], vec![0])
        } else {
            gather_unit(s, grid, x, unit, values, bases);
            (values, tap_offsets(s.side[1] * s.stride + 2, s.side[2] * s.stride + 2, s.c_in))
        };
        add_outer(from, bases, &offsets, s.c_in, rows, s.c_out, sums);
    });
    let n = s.taps();
    dw.par_chunks_mut(s.c_in * n).enumerate().for_each(|(co, row)| {
        for (i, value) in row.iter_mut().enumerate() {
            *value = sums[(i % n * s.c_in + i / n) * s.c_out + co];
        }
    });
}

/// sums[tap][i][j] += sum over v of a[bases[v] + tap + i] * rows[v][j], shared among the cores by (tap, 8 rows i).
fn add_outer(a: &[f32], bases: &[u32], taps: &[u32], c: usize, rows: &[f32], width: usize, sums: &mut [f32]) {
    let out = Shared(sums.as_mut_ptr());
    let strips = c.div_ceil(8);
    (0..taps.len() * strips).into_par_iter().for_each(|task| {
        let (t, i) = (task / strips, task % strips * 8);
        let target = unsafe { out.at().add((t * c + i) * width) };
        unsafe { kernels::outer(a, bases, taps[t] as usize + i, 8.min(c - i), rows, width, target) };
    });
}

/// Sum over rows, in a fixed order: 64 partial sums of equal stretches, then those in turn.
pub fn sum_rows(values: &[f32], c: usize, out: &mut [f32]) {
    let stretch = (values.len() / c).div_ceil(64).max(1);
    let partial: Vec<Vec<f64>> = values
        .par_chunks(stretch * c)
        .map(|rows| {
            let mut sum = vec![0f64; c];
            rows.chunks_exact(c).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, v)| *s += *v as f64));
            sum
        })
        .collect();
    for (i, value) in out.iter_mut().enumerate() {
        *value = partial.iter().map(|p| p[i]).sum::<f64>() as f32;
    }
}

/// Row offsets of the 2x2x2 children in a block of side 2b with `c` channels: (start of voxel v, per child).
fn children(s: &Up, z0: usize, z1: usize, c: usize) -> (Vec<u32>, Vec<u32>) {
    let [_, sy, sx] = s.side;
    let at = |z: usize, y: usize, x: usize| (((z * 2 * sy + y) * 2 * sx + x) * c) as u32;
    let starts =
        (z0 * sy * sx..z1 * sy * sx).map(|v| at(2 * (v / (sy * sx)), 2 * (v / sx % sy), 2 * (v % sx))).collect();
    (starts, (0..8).map(|t| at(t >> 2, t >> 1 & 1, t & 1)).collect())
}

fn up_units(s: &Up) -> Vec<Part> {
    units(s.blocks, s.side, GATHERED).into_iter().flatten().collect()
}

/// y of the transposed convolution: each child voxel is its own 1x1x1 convolution.
pub fn up_forward(s: &Up, x: &[f32], w: &[f32], bias: &[f32], y: &mut [f32]) {
    let packed: Vec<Packed> =
        (0..8).map(|t| Packed::new(s.c_in, s.c_out, &[t], |co, ci, t| w[(ci * s.c_out + co) * 8 + t])).collect();
    let out = Shared(y.as_mut_ptr());
    let plane = s.side[1] * s.side[2];
    up_units(s).par_iter().for_each(|part| {
        let from = (part.block * s.voxels() + part.z0 * plane) * s.c_in;
        let voxels = (part.z1 - part.z0) * plane;
        let bases: Vec<u32> = (0..voxels).map(|v| (v * s.c_in) as u32).collect();
        let (starts, child) = children(s, part.z0, part.z1, s.c_out);
        let target = unsafe { out.at().add(part.block * 8 * s.voxels() * s.c_out) };
        for t in 0..8 {
            let outs: Vec<u32> = starts.iter().map(|v| v + child[t]).collect();
            unsafe {
                kernels::direct(&x[from..from + voxels * s.c_in], &bases, &[0], &packed[t], Some(bias), target, &outs)
            };
        }
    });
}

/// dx of the transposed convolution: a 2x2x2 convolution with stride 2 over dy.
pub fn up_grad_input(s: &Up, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let taps: Vec<usize> = (0..8).collect();
    let packed = Packed::new(s.c_out, s.c_in, &taps, |ci, co, t| w[(ci * s.c_out + co) * 8 + t]);
    let out = Shared(dx.as_mut_ptr());
    let plane = s.side[1] * s.side[2];
    let big = 8 * s.voxels() * s.c_out;
    up_units(s).par_iter().for_each(|part| {
        let (bases, child) = children(s, part.z0, part.z1, s.c_out);
        let outs: Vec<u32> = (0..bases.len()).map(|v| (v * s.c_in) as u32).collect();
        let target = unsafe { out.at().add((part.block * s.voxels() + part.z0 * plane) * s.c_in) };
        unsafe { kernels::direct(&dy[part.block * big..][..big], &bases, &child, &packed, None, target, &outs) };
    });
}

/// dw of the transposed convolution, `[c_in, c_out, 2, 2, 2]`.
pub fn up_grad_weight(s: &Up, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let plane = s.side[1] * s.side[2];
    let big = 8 * s.voxels() * s.c_out;
    // [tap][c_out][c_in]
    let sums = sum_units(&up_units(s), 8 * s.c_in * s.c_out, |part, _, sums| {
        let (bases, child) = children(s, part.z0, part.z1, s.c_out);
        let from = (part.block * s.voxels() + part.z0 * plane) * s.c_in;
        let rows = &x[from..from + bases.len() * s.c_in];
        add_outer(&dy[part.block * big..][..big], &bases, &child, s.c_out, rows, s.c_in, sums);
    });
    for (i, value) in dw.iter_mut().enumerate() {
        let (t, co, ci) = (i % 8, i / 8 % s.c_out, i / 8 / s.c_out);
        *value = sums[(t * s.c_out + co) * s.c_in + ci];
    }
}
