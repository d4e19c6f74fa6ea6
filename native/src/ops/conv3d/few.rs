//! Convolutions of few voxels and many channels (the deepest stages), where reading the weights is the work: matrix
//! products on the weights as they lie, `[c_out][c_in * 27]`, with no packed copy and no transposed gradient.
//!
//! Two cores of a Zen 5, nothing else running, 2026-11-21, best of 10, milliseconds per call of bf16 (f32) this way, directly,
//! by Winograd with bf16 (f32) operands:
//!
//! | channels, blocks of | forward | data gradient | weight gradient |
//! |---|---|---|---|
//! | 320 to 320, 54 of 1^3 | 1.3, 4.2, - (1.6, 4.9, -) | 1.2, 3.4, - (1.7, 3.9, -) | 0.9, 3.1, - (1.4, 3.3, -) |
//! | 320 to 320, 1 of 3^3 | 0.9, 4.1, - (1.0, 4.1, -) | 0.8, 3.2, - (1.2, 3.0, -) | 0.7, 1.9, - (0.8, 3.0, -) |
//! | 320 to 320, 1 of 2^3 | 0.5, 2.9, 1.5 (0.7, 3.9, 3.5) | 0.7, 3.0, 1.6 (0.9, 3.0, 3.2) | 0.5, 2.4, 0.7 (0.5, 2.7, 0.7) |
//! | 256 to 256, 1 of 4^3 | 0.9, 2.3, 1.1 (1.2, 2.8, 2.1) | 0.8, 2.3, 0.9 (1.3, 2.7, 1.7) | 0.7, 1.1, 0.4 (1.0, 1.3, 0.5) |
//!
//! Reading and writing the weights (11 MB) takes about half of this.

use super::Shape;
use super::direct::Shared;
use super::isa::{Isa, isa};
use super::kernels::{M, N, Operand, Tile, Weights};
use crate::element::{Element, convert};
use crate::grid::Grid;
use crate::memory::Scratch;
use crate::wide;
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

wide! {
    /// Stored values as operands.
    fn operands<E: Element>(from: &[f32], to: &mut [E]) {
        convert(from, to);
    }
}

wide! {
    /// Two rows as neighbouring operands of each column; the first alone where a word holds one.
    fn interleaved<O: Operand>(low: &[f32], high: &[f32], to: &mut [O]) {
        if O::GROUP == 1 {
            return convert(low, to);
        }
        for ((to, low), high) in to.chunks_exact_mut(2).zip(low).zip(high) {
            to[0] = O::from_f32(*low);
            to[1] = O::from_f32(*high);
        }
    }
}

/// Rows of `c` values as operands, then zeros up to `rows` rows.
fn rows_as<E: Element, O: Operand>(x: &[E], c: usize, rows: usize) -> Scratch<O> {
    let mut out = Scratch::<O>::new(rows * c);
    convert(x, &mut out[..x.len()]);
    out[x.len()..].fill(O::default());
    out
}

/// Columns of a panel of the right factor.
const WIDTH: usize = 16;

/// A right factor of `depth` rows in panels, as `Operand::tile` reads them: `[depth / GROUP][WIDTH][GROUP]` each.
#[derive(Clone, Copy)]
struct Panels {
    depth: usize,
    columns: usize,
}

impl Panels {
    fn count(&self) -> usize {
        self.columns.div_ceil(WIDTH)
    }
    fn len(&self) -> usize {
        self.depth * self.count() * WIDTH
    }
    /// Where value (k, j) lies.
    #[inline(always)]
    fn at<O: Operand>(&self, k: usize, j: usize) -> usize {
        (j / WIDTH * self.depth + k / O::GROUP * O::GROUP) * WIDTH + j % WIDTH * O::GROUP + k % O::GROUP
    }
    /// Rows `k..` of a panel.
    fn weights<O: Operand>(&self, values: &[O], panel: usize, k: usize, c: usize) -> Weights<O> {
        Weights { at: values[(panel * self.depth + k) * WIDTH..][..c * WIDTH].as_ptr(), c, width: WIDTH }
    }
}

/// M rows of a product, from `from` on: tile[i][j] (+)= sum over k < c of a[from + i * row + k] * w[k][j].
fn multiply<O: Operand>(a: &[O], from: usize, row: usize, w: Weights<O>, fresh: bool, tile: &mut Tile) {
    assert!(from + (M - 1) * row + w.c <= a.len());
    let from: [u32; M] = std::array::from_fn(|i| (from + i * row) as u32);
    unsafe { O::tile(a.as_ptr(), &from, &[0], w, fresh.then_some(&[0.0; N]), tile) }
}

/// y = conv(x) + bias.
pub fn forward<E: Element, O: Operand>(s: &Shape, grid: &Grid, x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    let (sources, voxels, depth) = (sources(s, grid), grid.blocks.len() * s.out_voxels(), 27 * s.c_in);
    let x = rows_as::<E, O>(x, s.c_in, x.len() / s.c_in + 1);
    // The input of each tap, [c_in][tap][voxel].
    let panels = Panels { depth, columns: voxels };
    let mut columns = Scratch::<O>::new(panels.len());
    let to = Shared(columns.as_mut_ptr());
    (0..s.c_in).into_par_iter().with_min_len(CHANNELS).for_each(|ci| {
        for (tap, sources) in sources.chunks_exact(voxels).enumerate() {
            for (voxel, &from) in sources.iter().enumerate() {
                let at = panels.at::<O>(27 * ci + tap, voxel);
                unsafe { *to.at(at) = x[from as usize * s.c_in + ci] };
            }
        }
    });
    let out = Shared(y.as_mut_ptr());
    (0..s.c_out).into_par_iter().step_by(OUTPUTS).for_each(|first| {
        let mut tiles = vec![[0f32; M * N]; panels.count() * OUTPUTS / M];
        let mut rows = Scratch::<O>::new(OUTPUTS * COLUMNS);
        for k in (0..depth).step_by(COLUMNS) {
            for (i, row) in rows.chunks_exact_mut(COLUMNS).enumerate() {
                operands(&w[(first + i) * depth + k..][..COLUMNS], row);
            }
            for (panel, tiles) in tiles.chunks_exact_mut(OUTPUTS / M).enumerate() {
                let right = panels.weights(&columns, panel, k, COLUMNS);
                for (m, tile) in tiles.iter_mut().enumerate() {
                    multiply(&rows, m * M * COLUMNS, COLUMNS, right, k == 0, tile);
                }
            }
        }
        for voxel in 0..voxels {
            for i in 0..OUTPUTS {
                let sum = tiles[voxel / WIDTH * (OUTPUTS / M) + i / M][i % M * N + voxel % WIDTH];
                let value = sum + bias.map_or(0.0, |b| b[first + i]);
                unsafe { *out.at(voxel * s.c_out + first + i) = E::from_f32(value) };
            }
        }
    });
}

/// dx from dy: what each tap receives, then those sums where the taps lie.
pub fn grad_input<E: Element, O: Operand>(s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: &mut [E]) {
    let (sources, voxels, rows) = (sources(s, grid), grid.blocks.len() * s.out_voxels(), dx.len() / s.c_in);
    let height = voxels.next_multiple_of(M);
    let dy = rows_as::<E, O>(dy, s.c_out, height);
    let out = Shared(dx.as_mut_ptr());
    let panels = Panels { depth: s.c_out, columns: COLUMNS };
    (0..s.c_in).into_par_iter().step_by(CHANNELS).for_each(|first| {
        let mut part = Scratch::<O>::new(panels.len());
        for co in (0..s.c_out).step_by(O::GROUP) {
            let row = |co: usize| &w[(co * s.c_in + first) * 27..][..COLUMNS];
            let (low, high) = (row(co), row(co + O::GROUP - 1));
            for j in (0..COLUMNS).step_by(WIDTH) {
                let to = &mut part[panels.at::<O>(co, j)..][..WIDTH * O::GROUP];
                interleaved(&low[j..j + WIDTH], &high[j..j + WIDTH], to);
            }
        }
        let mut taps = Scratch::<f32>::new(height * COLUMNS);
        let mut tile = [0f32; M * N];
        for panel in 0..panels.count() {
            let right = panels.weights(&part, panel, 0, s.c_out);
            for m in (0..height).step_by(M) {
                multiply(&dy, m * s.c_out, s.c_out, right, true, &mut tile);
                for (i, row) in tile.chunks_exact(N).enumerate() {
                    taps[(m + i) * COLUMNS + panel * WIDTH..][..WIDTH].copy_from_slice(&row[..WIDTH]);
                }
            }
        }
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
pub fn grad_weight<E: Element, O: Operand>(s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    let (sources, voxels) = (sources(s, grid), grid.blocks.len() * s.out_voxels());
    let depth = voxels.next_multiple_of(O::GROUP);
    let x = rows_as::<E, O>(x, s.c_in, x.len() / s.c_in + 1);
    // dy as [c_out][voxel].
    let mut left = Scratch::<O>::new(s.c_out * depth);
    left.par_chunks_mut(depth).enumerate().with_min_len(16).for_each(|(co, row)| {
        for (voxel, to) in row.iter_mut().enumerate() {
            *to = if voxel < voxels { O::from_f32(dy[voxel * s.c_out + co].to_f32()) } else { O::default() };
        }
    });
    let out = Shared(dw.as_mut_ptr());
    let panels = Panels { depth, columns: COLUMNS };
    (0..s.c_in).into_par_iter().step_by(CHANNELS).for_each(|first| {
        let mut taps = Scratch::<O>::new(panels.len());
        taps.fill(O::default());
        for (tap, sources) in sources.chunks_exact(voxels).enumerate() {
            for (voxel, &row) in sources.iter().enumerate() {
                let x = &x[row as usize * s.c_in + first..][..CHANNELS];
                x.iter().enumerate().for_each(|(i, x)| taps[panels.at::<O>(voxel, 27 * i + tap)] = *x);
            }
        }
        let mut tile = [0f32; M * N];
        for co in (0..s.c_out).step_by(M) {
            for panel in 0..panels.count() {
                multiply(&left, co * depth, depth, panels.weights(&taps, panel, 0, depth), true, &mut tile);
                for (i, row) in tile.chunks_exact(N).enumerate() {
                    let to = unsafe { out.at((co + i) * 27 * s.c_in + 27 * first + panel * WIDTH) };
                    unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to, WIDTH) };
                }
            }
        }
    });
}
