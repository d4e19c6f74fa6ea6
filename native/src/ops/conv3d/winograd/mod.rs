//! 3x3x3 convolution with stride 1 by Winograd's minimal filtering F(2x2x2, 3x3x3): 64 products in place of 216 per 2x2x2
//! outputs. With f32 operands and sides along y and x that 4 divides, F(2x4x4, 3x3x3): 144 in place of 864 ("wide" tiles).
//! Same contract as `conv3d`: block lists, absent blocks read as zero; block sides must be even.
//!
//! Measured: billions of direct operations (2 x 27 x c_in x c_out x voxels) per second of two Zen 5 cores with AVX-512 bf16
//! (peak by multiplying directly: 468 in f32, 936 in bf16), nothing else running, 2026-11-21, best of 6 in turn, tiles of 2x2x2. bf16 tensors:
//! directly, this way with f32 operands, with bf16 operands ("pairs"); f32 tensors: directly, this way.
//! `vx_conv3d_algorithm` switches between them.
//!
//! | channels, map | bf16 forward | bf16 data gradient | bf16 weight gradient | f32 forward | f32 weight gradient |
//! |---|---|---|---|---|---|
//! | 16 to 16, 64^3 | 487, 702, 998 | 492, 740, 972 | 422, 673, 862 | 288, 662 | 300, 595 |
//! | 32 to 32, 64^3 | 815, 1085, 1700 | 818, 1075, 1714 | 709, 973, 1465 | 419, 1048 | 423, 943 |
//! | 64 to 32, 96^3 | 796, 1110, 1741 | 817, 1132, 1886 | 468, 1048, 1496 | 357, 995 | 358, 924 |
//! | 64 to 64, 32^3 | 853, 1238, 2011 | 847, 1229, 2180 | 781, 1105, 1865 | 393, 1134 | 427, 956 |
//! | 64 to 64, 54 of 8^3 | 807, 1214, 2119 | 827, 1229, 2157 | 756, 1024, 1741 | | |
//! | 128 to 128, 16^3 | 411, 1177, 2084 | 414, 1192, 1975 | 672, 1104, 2062 | 212, 1003 | 375, 1039 |
//! | 256 to 256, 12^3 | -, 828, 1458 | -, 920, 1881 | -, 1033, 1577 | | 774 |
//! | 256 to 256, 54 of 2^3 | 191, 502, 977 | 214, 546, 1147 | 137, 756, 1273 | 166, 616 | 267, 883 |
//! | 320 to 320, 6^3 | 185, 308, 791 | 199, 423, 854 | 218, 724, 1084 | 100, 235 | 144, 724 |
//!
//! One core does 0.52 to 0.6 of this. With AVX2 it gains 1.5 to 3.8x over the direct way (weight gradient 6x and more), without
//! either 1.1 to 1.7x. Rows of bf16 that end inside a vector (8 channels) are slower this way.
//!
//! What it took, milliseconds before and after: weights to and from vectors of taps by transposition, 256 to 256 on 54 of
//! 2^3: weight gradient 3.3, 2.1; the next weights asked for while these are transformed, forward 3.9, 1.6 (asking for the lines
//! to be written alone: nothing); `weight_few`; all z indices in one task of the weight gradient while the sums stay in the L2
//! cache, 32 to 32 at 96^3: 39, 34. Transformed weights are not kept: a training step uses them once per direction.
//! bf16 pairs, 32 channels at a time, rounded by vcvtneps2bf16, and no division in the loops (2026-11-22, in turn, best; the table
//! is older): 32 to 32 at 64^3 forward 10.0, 8.0, data gradient 8.8, 7.9, weight gradient 9.3, 8.0; 64 to 64 at 32^3 3.9, 3.5
//! and 3.4, 3.2 and 3.9, 3.6; 128 to 128 at 16^3 1.7 as before.
//!
//! Norm on load is not built. Timed in a trial with tiles of 2x2x2, best of 14 in turn, forward in milliseconds: as it is; with
//! scale, shift and LeakyReLU on every load of `column`; with the rows of a group normalised once into scratch; and what `vx_norm`
//! takes, which it would save where no one else reads the tensor. 32 to 32 at 96^3: f32 54.8, 55.4, 60.4, 6.6; bf16 35.9, 36.5,
//! 43.4, 2.6. 64 to 64 at 48^3: f32 21.9, 22.0, 23.2, 1.2; bf16 13.3, 14.0, 15.1, 0.7. (Rows beyond the edge, which must stay
//! zero, were not treated apart.) The weight gradient loads the same tensor and pays again. In a step of `mae` at 96^3 the one
//! convolution of 32 channels that alone reads a norm would save 1.4 ms of 1560 in bf16, 5.4 of 2060 in f32; those of 64 and more
//! lose. Hence sums on store, which a norm then finds, but no norm on load.
//!
//! f32 in tiles of 2x2x2 and of 2x4x4, milliseconds of two cores in turn, best of 5, 2026-11-22, other programs running:
//!
//! | channels, map | forward | data gradient | weight gradient |
//! |---|---|---|---|
//! | 16 to 16, 64^3 | 9.8, 7.0 | 9.7, 7.0 | 10.7, 7.6 |
//! | 32 to 32, 64^3 | -, 11.2 | 14.9, 11.4 | 18.0, 13.2 |
//! | 64 to 32, 96^3 | 121, 104 | 98.9, 74.7 | 133, 134 |
//! | 64 to 64, 48^3 | 23.3, 19.6 | 23.4, 19.4 | 30.8, 26.5 |
//! | 128 to 128, 24^3 | 12.6, 10.7 | 11.9, 10.2 | 12.2, 9.1 |
//! | 128 to 128, 16^3 | 4.3, 4.3 | 3.9, 3.5 | 3.9, 3.5 |
//! | 256 to 256, 12^3 | 8.3, 7.7 | 7.7, 7.2 | 8.8, 7.3 |
//!
//! One core gains more: 64 to 64 at 48^3 40.1, 28.9 and 39.8, 27.3 and 45.3, 34.6; with AVX2 at 24^3 11.0, 7.6 and 10.7, 6.8 and
//! 11.1, 8.4. What a group of wide tiles touches exceeds the L2 cache from 64 channels on. Tried: groups of 16 to 64 tiles (within a
//! tenth, but for multiples of 8), products of 8 tiles at a time (24: up to 14 % faster), columns kept in registers in place of a
//! ring in memory (spills: the input transform took 58 % of 64 to 32 at 96^3).
//!
//! Relative RMS error against f64 (16^3, uniform noise; forward pass, and weight gradient behind the comma):
//!
//! | channels | directly | 2x2x2 | 2x4x4 |
//! |---|---|---|---|
//! | 32 to 32 | 5.0e-7, 7.6e-7 | 2.4e-7, 1.5e-6 | 7.9e-7, 8.3e-7 |
//! | 64 to 64 | 7.1e-7, 5.4e-7 | 3.2e-7, 7.4e-7 | 8.0e-7, 8.1e-7 |
//! | 128 to 128 | 1.0e-6, 3.9e-7 | 4.4e-7, 1.2e-6 | 8.3e-7, 8.1e-7 |
//! | 256 to 256 | 1.4e-6, 2.9e-7 | 5.8e-7, 6.8e-7 | 8.6e-7, 8.2e-7 |
//!
//! Sums of more than 32 channels in one go would bring 2x4x4 to 1.0e-6, 1.4e-6 and 1.9e-6.

// Small matrices read best by index.
#![allow(clippy::needless_range_loop)]

mod axis;
mod forward;
mod forward_few;
mod tiles;
mod transform;
mod weight;
mod weight_few;

use super::Shape;
use super::product;
use super::taps::{Given, Gradient};
use super::vector::{self, Path};
use crate::element::Element;
use crate::grid::Grid;
use crate::memory::Scratch;
use rayon::prelude::*;
use tiles::Tiles;
pub use tiles::{Parts, claim, into_l2, soon};

/// Runs what follows for `T`, the side of tiles along y and x.
macro_rules! by_tile {
    ($path:ident, $t:ident => $run:expr) => {
        if $path.wide {
            const $t: usize = 4;
            $run
        } else {
            const $t: usize = 2;
            $run
        }
    };
}

/// Whether this path can compute the shape: 3x3x3, stride 1, even block sides.
pub fn applies(s: &Shape) -> bool {
    (s.kernel, s.stride) == (3, 1) && s.side.iter().all(|v| v % 2 == 0)
}

/// Whether its tiles can be 2x4x4.
pub fn widens(s: &Shape) -> bool {
    s.side[1..].iter().all(|v| v % 4 == 0)
}

/// y = conv(x) + bias. Where a norm follows (`normed`), the sums that it needs, if they were cheap to take: `[sample][2][c_out]`.
pub fn forward<E: Element>(
    path: Path,
    s: &Shape,
    grid: &Grid,
    x: Parts<&[E]>,
    w: &[f32],
    (bias, normed): (Option<&[f32]>, bool),
    y: &mut [E],
) -> Option<Vec<f64>> {
    assert!(w.len() == s.weight_len());
    let weights = Given { w, c_in: s.c_in, c_out: s.c_out, stride: (27, s.c_in * 27), flip: false };
    let tiles = Tiles { grid, side: s.side, volumes: false };
    run(path, tiles, x, &weights, (bias, normed), Parts::one_mut(y, s.c_out))
}

/// Sums per sample from those per tile row, `[tile row][width]`, in turn.
fn by_sample<const T: usize>(tiles: &Tiles<T>, sums: &[f64], width: usize) -> Vec<f64> {
    let Grid { blocks, starts, samples, .. } = tiles.grid;
    let per_block = tiles.rows() / blocks.len().max(1);
    let mut out = vec![0f64; samples * width];
    for (out, span) in out.chunks_exact_mut(width).zip(starts.windows(2)) {
        for row in sums[span[0] * per_block * width..span[1] * per_block * width].chunks_exact(width) {
            out.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
        }
    }
    out
}

/// dx from dy: the forward sum with swapped channels and mirrored taps. `volumes`: dy lies in whole volumes, of which
/// only the blocks of the grid get a gradient.
pub fn grad_input<E: Element>(
    path: Path,
    s: &Shape,
    grid: &Grid,
    volumes: bool,
    dy: &[E],
    w: &[f32],
    dx: Parts<&mut [E]>,
) {
    assert!(w.len() == s.weight_len());
    let weights = Given { w, c_in: s.c_out, c_out: s.c_in, stride: (s.c_in * 27, 27), flip: true };
    run(path, Tiles { grid, side: s.side, volumes }, Parts::one(dy, s.c_out), &weights, (None, false), dx);
}

fn run<E: Element>(
    path: Path,
    tiles: Tiles<2>,
    x: Parts<&[E]>,
    given: &Given,
    (bias, normed): (Option<&[f32]>, bool),
    y: Parts<&mut [E]>,
) -> Option<Vec<f64>> {
    let &Given { c_in, c_out, .. } = given;
    assert!(x.channels() == c_in && y.channels() == c_out);
    let (x, y) = (x.at(tiles.input_voxels()), y.at_mut(tiles.count() * 8));
    let mut padded = vec![0f32; c_out.next_multiple_of(product::PANEL)];
    if let Some(bias) = bias {
        padded[..c_out].copy_from_slice(bias);
    }
    let zeros = Scratch::<E>::zeros(tiles.side[2] * c_in);
    if !path.wide && tiles.count() <= forward_few::TILES && c_out > product::PANEL {
        let mut memory = Scratch::<f32>::new(forward_few::input_len(tiles.count(), c_in, path.operands));
        let input = forward_few::Input { tiles, x, zeros: &zeros, to: memory.as_mut_ptr() };
        (0..4 * tiles.rows()).into_par_iter().for_each(|index| vector::dispatch(&input, path, index));
        let lines = given.lines(forward_few::STRIP * path.operands.per_word(), product::PANEL);
        let work = forward_few::Panel { tiles, input: memory.as_ptr(), given: *given, lines: &lines, bias: &padded, y };
        let panels = c_out.div_ceil(product::PANEL);
        (0..panels).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&work, path, index));
        return None;
    }
    by_tile!(path, T => {
        let tiles = tiles.of::<T>();
        let mut memory = Scratch::<f32>::new(forward::weights_len::<T>(c_in, c_out, path.operands));
        let to = memory.as_mut_ptr();
        let weights = forward::Weights::<T> { given: *given, to };
        (0..c_in.div_ceil(forward::STRIP)).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&weights, path, index));
        let rows = forward_rows(&tiles, c_in);
        let count = tiles.rows().div_ceil(rows);
        let mut sums = Scratch::<f64>::new(if normed { tiles.rows() * 2 * c_out } else { 0 });
        let channels = normed.then(|| sums.as_mut_ptr());
        let work = forward::Forward { tiles, x, y, c_in, c_out, weights: to, bias: &padded, zeros: &zeros, rows, channels };
        (0..count).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&work, path, index));
        normed.then(|| by_sample(&tiles, &sums, 2 * c_out))
    })
}

/// Tile rows per group: enough tiles to use the weights often, few enough to stay in the L2 cache and to feed all cores.
fn forward_rows<const T: usize>(tiles: &Tiles<T>, c_in: usize) -> usize {
    let most = match (T, c_in) {
        (4, ..=128) => 24,
        (2, ..=32) => 128,
        _ => 64,
    };
    let share = tiles.count().div_ceil(rayon::current_num_threads()).next_multiple_of(product::ROWS);
    (share.min(most) / tiles.per_row()).max(1)
}

/// dw from x and dy. The order of the sums depends on the shape only.
pub fn grad_weight<E: Element>(path: Path, s: &Shape, grid: &Grid, x: Parts<&[E]>, dy: &[E], dw: &mut [f32]) {
    assert!(dw.len() == s.weight_len());
    let to = Gradient { dw: dw.as_mut_ptr(), c_in: s.c_in, c_out: s.c_out, stride: (27, s.c_in * 27), flip: false };
    by_tile!(path, T => {
        let tiles = Tiles::<T> { grid, side: s.side, volumes: false };
        if !weight_few::takes::<T>(tiles.count(), s.c_in.min(s.c_out)) {
            return sum_weight(path, tiles, x, dy, to);
        }
        // With dy around x, as both are zero outside the blocks, the gradient is written row by row.
        let mut first = 0;
        for (x, c) in x.of.into_iter().zip(x.c).filter(|(_, c)| *c > 0) {
            let dw = to.dw.wrapping_add(first * 27);
            let to = Gradient { dw, c_in: s.c_out, c_out: c, stride: (s.c_in * 27, 27), flip: true };
            sum_weight(path, tiles, Parts::one(dy, s.c_out), x, to);
            first += c;
        }
    })
}

/// dw from x, which is zero outside the blocks of the grid, and dy in whole volumes: the sum over x of dy around it, so
/// that the two change places and the taps are mirrored.
pub fn grad_weight_in_volumes<E: Element>(path: Path, s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    assert!(dw.len() == s.weight_len());
    let to = Gradient { dw: dw.as_mut_ptr(), c_in: s.c_out, c_out: s.c_in, stride: (s.c_in * 27, 27), flip: true };
    by_tile!(path, T => sum_weight(path, Tiles::<T> { grid, side: s.side, volumes: true }, Parts::one(dy, s.c_out), x, to))
}

/// The sums over all tiles of the transformed x and dy.
fn sum_weight<E: Element, const T: usize>(path: Path, tiles: Tiles<T>, x: Parts<&[E]>, dy: &[E], to: Gradient) {
    let Gradient { c_in, c_out, .. } = to;
    assert!(x.channels() == c_in && dy.len() == tiles.count() * 2 * T * T * c_out);
    let kept = |c_in: usize| weight::sums_len::<T>(c_in, c_out) <= weight::TOGETHER;
    if T == 4 && x.c[1] > 0 && !kept(c_in) && x.c.into_iter().all(kept) {
        // One after the other their sums stay in the L2 cache: 32 + 32 to 32 at 96^3 97 ms, then 86. The same bits.
        let [a, b] = [0, 1].map(|part| Parts::one(x.of[part], x.c[part]));
        let second = to.dw.wrapping_add(x.c[0] * to.stride.0);
        sum_weight(path, tiles, a, dy, Gradient { c_in: x.c[0], ..to });
        return sum_weight(path, tiles, b, dy, Gradient { c_in: x.c[1], dw: second, ..to });
    }
    let x = x.at(tiles.input_voxels());
    if tiles.count() == 0 {
        return unsafe { std::ptr::write_bytes(to.dw, 0, c_in * c_out * 27) };
    }
    let zeros = Scratch::<E>::zeros(tiles.side[2] * c_in);
    if weight_few::takes::<T>(tiles.count(), c_in) {
        let len = weight_few::spread_len::<T>(tiles.count(), c_out, path.operands);
        let mut memory = Scratch::<f32>::new(len);
        let spread = weight_few::Spread { tiles, dy: dy.as_ptr(), c_out, to: memory.as_mut_ptr() };
        let planes = 4 * c_out.div_ceil(product::PANEL);
        (0..planes).into_par_iter().for_each(|index| vector::dispatch(&spread, path, index));
        let strip = weight_few::Strip { tiles, x, zeros: &zeros, dy: memory.as_ptr(), to };
        let strips = c_in.div_ceil(weight_few::STRIP);
        return (0..strips).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&strip, path, index));
    }
    let most = match (T, c_in) {
        (4, _) => 32,
        (_, ..=32) => 128,
        _ => 64,
    };
    let rows = (most / tiles.per_row()).max(1);
    // A stretch has 2048 tiles or more, so that its sums cost little beside its products.
    let groups = tiles.rows().div_ceil(rows);
    let stretch = groups.div_ceil((tiles.count() / 2048).clamp(1, 8)) * rows;
    let stretches = tiles.rows().div_ceil(stretch);
    let len = stretches * weight::sums_len::<T>(c_in, c_out);
    let mut memory = Scratch::<f32>::new(len);
    let at = memory.as_mut_ptr();
    let dy = dy.as_ptr();
    let panels = c_out.div_ceil(product::PANEL);
    let threads = rayon::current_num_threads();
    let together = kept(c_in) && stretches >= threads;
    let per_stretch = if together { 1 } else { 4 };
    let shares = threads.div_ceil(per_stretch * stretches).min(panels);
    let per_task = panels.div_ceil(shares);
    let tasks = per_stretch * stretches * panels.div_ceil(per_task);
    let sums =
        weight::Sums { tiles, x, dy, c_in, c_out, zeros: &zeros, rows, stretch, panels: per_task, together, to: at };
    (0..tasks).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&sums, path, index));
    let finish = weight::Finish::<T> { sums: &memory, stretches, to };
    let blocks = panels * c_in.div_ceil(product::ROWS);
    (0..blocks).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&finish, path, index));
}

#[cfg(test)]
mod tests;
