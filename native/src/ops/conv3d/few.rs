//! Convolutions of few voxels and many channels (the deepest stages), where reading the weights is the work: matrix
//! products on the weights as they lie, `[c_out][c_in * 27]`, with no packed copy and no transposed gradient.
//!
//! Measured with `vx_conv3d_algorithm` on two cores of a Zen 5 (shared, load 6: trust the ratios), 2026-11-21, best of 12,
//! milliseconds per call of f32 (bf16 is alike) this way, directly, by Winograd:
//!
//! | channels, blocks of | forward | data gradient | weight gradient |
//! |---|---|---|---|
//! | 320 to 320, 54 of 1^3 | 2.0, 7.7, - | 2.3, 6.1, - | 2.0, 7.7, - |
//! | 320 to 320, 1 of 3^3 | 1.1, 7.8, - | 1.5, 5.4, - | 1.3, 6.8, - |
//! | 256 to 320, 54 of 1^3, stride 2 | 1.8, 7.0, - | 1.9, 6.1, - | 1.7, 7.0, - |
//! | 256 to 256, 1 of 4^3 | 1.4, 5.1, 3.8 | 1.7, 4.0, 3.8 | 1.7, 3.3, 4.0 |
//! | 128 to 128, 1 of 4^3 | 0.44, 0.90, 1.00 | 0.43, 0.86, 0.97 | 0.40, 0.57, 0.38 |

use super::Shape;
use super::direct::Shared;
use super::isa::{Isa, isa};
use crate::element::{Element, convert};
use crate::grid::Grid;
use crate::memory::Scratch;
use crate::ops::tile::{Strides, product};
use rayon::prelude::*;

/// Output voxels up to which this way is taken.
const VOXELS: usize = 128;
/// Input channels per task, and the columns of the weights that they cover.
const CHANNELS: usize = 16;
const COLUMNS: usize = 27 * CHANNELS;
/// Output channels per task.
const OUTPUTS: usize = 32;

/// Whether this way computes the shape, and is the faster one.
pub fn wins(s: &Shape, grid: &Grid) -> bool {
    let voxels = grid.blocks.len() * s.out_voxels();
    let shape = s.kernel == 3 && s.c_in.is_multiple_of(CHANNELS) && s.c_out.is_multiple_of(OUTPUTS);
    shape && isa() >= Isa::Avx512 && (1..=VOXELS).contains(&voxels) && s.c_in * s.c_out >= 1 << 14
}

/// Input row of each tap and output voxel, `[tap][voxel]`; absent ones name the row after the last.
fn sources(s: &Shape, grid: &Grid) -> Vec<u32> {
    let side = s.side.map(|v| v * s.stride);
    let absent = (grid.blocks.len() * s.in_voxels()) as u32;
    // Position of input `p - 1` on an axis: (neighbour 0..3, voxel in its block).
    let locate = |p: usize, side: usize| match p {
        0 => (0, side - 1),
        p if p > side => (2, 0),
        p => (1, p - 1),
    };
    let mut list = Vec::with_capacity(27 * grid.blocks.len() * s.out_voxels());
    for tap in 0..27 {
        for neighbours in &grid.neighbours {
            for voxel in 0..s.out_voxels() {
                let at = [voxel / (s.side[1] * s.side[2]), voxel / s.side[2] % s.side[1], voxel % s.side[2]];
                let [(nz, z), (ny, y), (nx, x)] =
                    std::array::from_fn(|a| locate(at[a] * s.stride + [tap / 9, tap / 3 % 3, tap % 3][a], side[a]));
                list.push(match neighbours[nz * 9 + ny * 3 + nx] {
                    -1 => absent,
                    b => (((b as usize * side[0] + z) * side[1] + y) * side[2] + x) as u32,
                });
            }
        }
    }
    list
}

/// Rows of `c` values as f32, then zeros up to `rows` rows.
fn wide<E: Element>(x: &[E], c: usize, rows: usize) -> Scratch<f32> {
    let mut out = Scratch::<f32>::new(rows * c);
    convert(x, &mut out[..x.len()]);
    out[x.len()..].fill(0.0);
    out
}

/// y = conv(x) + bias.
pub fn forward<E: Element>(s: &Shape, grid: &Grid, x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    let (sources, voxels, depth) = (sources(s, grid), grid.blocks.len() * s.out_voxels(), 27 * s.c_in);
    let x = wide(x, s.c_in, x.len() / s.c_in + 1);
    let width = voxels.next_multiple_of(16);
    // The input of each tap, [c_in][tap][voxel].
    let mut columns = Scratch::<f32>::new(depth * width);
    columns.par_chunks_mut(27 * width).enumerate().for_each(|(ci, rows)| {
        for (row, sources) in rows.chunks_exact_mut(width).zip(sources.chunks_exact(voxels)) {
            row[voxels..].fill(0.0);
            row.iter_mut().zip(sources).for_each(|(to, &from)| *to = x[from as usize * s.c_in + ci]);
        }
    });
    let out = Shared(y.as_mut_ptr());
    (0..s.c_out).into_par_iter().step_by(OUTPUTS).for_each(|first| {
        let mut sums = Scratch::<f32>::new(OUTPUTS * width);
        for k in (0..depth).step_by(COLUMNS) {
            let (left, right) = (&w[first * depth + k..], &columns[k * width..]);
            let at = Strides { row: depth, column: 1 };
            product([OUTPUTS, width, COLUMNS], left, at, right, width, &mut sums, width, k > 0);
        }
        for voxel in 0..voxels {
            for (i, sums) in sums.chunks_exact(width).enumerate() {
                let value = sums[voxel] + bias.map_or(0.0, |b| b[first + i]);
                unsafe { *out.at(voxel * s.c_out + first + i) = E::from_f32(value) };
            }
        }
    });
}

/// dx from dy: what each tap receives, then those sums where the taps lie.
pub fn grad_input<E: Element>(s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: &mut [E]) {
    let (sources, voxels, rows) = (sources(s, grid), grid.blocks.len() * s.out_voxels(), dx.len() / s.c_in);
    let height = voxels.next_multiple_of(8);
    let dy = wide(dy, s.c_out, height);
    let out = Shared(dx.as_mut_ptr());
    (0..s.c_in).into_par_iter().step_by(CHANNELS).for_each(|first| {
        let mut part = Scratch::<f32>::new(s.c_out * COLUMNS);
        for (to, from) in part.chunks_exact_mut(COLUMNS).zip(w.chunks_exact(27 * s.c_in)) {
            to.copy_from_slice(&from[27 * first..][..COLUMNS]);
        }
        let mut taps = Scratch::<f32>::new(height * COLUMNS);
        let at = Strides { row: s.c_out, column: 1 };
        product([height, COLUMNS, s.c_out], &dy, at, &part, COLUMNS, &mut taps, COLUMNS, false);
        let mut sums = Scratch::<f32>::zeros((rows + 1) * CHANNELS);
        for (tap, sources) in sources.chunks_exact(voxels).enumerate() {
            for (taps, &row) in taps.chunks_exact(COLUMNS).zip(sources) {
                let sums = &mut sums[row as usize * CHANNELS..][..CHANNELS];
                sums.iter_mut().enumerate().for_each(|(i, sum)| *sum += taps[27 * i + tap]);
            }
        }
        for (row, sums) in sums.chunks_exact(CHANNELS).take(rows).enumerate() {
            let to = unsafe { std::slice::from_raw_parts_mut(out.at(row * s.c_in + first), CHANNELS) };
            convert(sums, to);
        }
    });
}

/// dw from x and dy.
pub fn grad_weight<E: Element>(s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    let (sources, voxels, depth) = (sources(s, grid), grid.blocks.len() * s.out_voxels(), 27 * s.c_in);
    let x = wide(x, s.c_in, x.len() / s.c_in + 1);
    let dy = wide(dy, s.c_out, voxels);
    let out = Shared(dw.as_mut_ptr());
    (0..s.c_in).into_par_iter().step_by(CHANNELS).for_each(|first| {
        let mut taps = Scratch::<f32>::new(voxels * COLUMNS);
        for (tap, sources) in sources.chunks_exact(voxels).enumerate() {
            for (taps, &row) in taps.chunks_exact_mut(COLUMNS).zip(sources) {
                let x = &x[row as usize * s.c_in + first..][..CHANNELS];
                x.iter().enumerate().for_each(|(i, x)| taps[27 * i + tap] = *x);
            }
        }
        // Eight output channels at a time: their columns of dw go out while they are in the cache.
        let mut rows = [0f32; 8 * COLUMNS];
        for co in (0..s.c_out).step_by(8) {
            let at = Strides { row: 1, column: s.c_out };
            product([8, COLUMNS, voxels], &dy[co..], at, &taps, COLUMNS, &mut rows, COLUMNS, false);
            for (i, row) in rows.chunks_exact(COLUMNS).enumerate() {
                let to = unsafe { out.at((co + i) * depth + 27 * first) };
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to, COLUMNS) };
            }
        }
    });
}
