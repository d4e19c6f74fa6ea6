//! 3x3x3 convolution with stride 1 by Winograd's minimal filtering F(2x2x2, 3x3x3): 64 products in place of 216 per 2x2x2
//! outputs. Same contract as `conv3d`: block lists, absent blocks read as zero; block sides must be even.
//!
//! Measured: billions of direct operations (2 x 27 x c_in x c_out x voxels) per second of one core, directly and this way
//! in turn, best of 3 by CPU time. Zen 5 with AVX-512 bf16, shared with other work, 2026-11-21: trust the ratios. "pairs"
//! are bf16 operands. `vx_conv3d_algorithm` switches between the ways; `vx_threads(1)` leaves one core.
//!
//! | channels, side, batch | tiles | f32 forward | f32 weight | bf16 forward, f32 operands, pairs | bf16 weight, pairs |
//! |---|---|---|---|---|---|
//! | 16, 32^3, 2 | 8192 | 151, 314 (2.1x) | 152, 254 (1.7x) | 255, 363 (1.4x), 472 (1.9x) | 224, 344 (1.5x) |
//! | 32, 32^3, 1 | 4096 | 214, 490 (2.3x) | 203, 375 (1.8x) | 389, 511 (1.3x), 761 (2.0x) | 387, 727 (1.9x) |
//! | 64, 16^3, 2 | 1024 | 211, 541 (2.6x) | 188, 490 (2.6x) | 417, 605 (1.5x), 935 (2.2x) | 335, 884 (2.6x) |
//! | 128, 16^3, 1 | 512 | 197, 547 (2.8x) | 177, 568 (3.2x) | 400, 565 (1.4x), 914 (2.3x) | 273, 1016 (3.7x) |
//! | 256, 8^3, 2 | 128 | 182, 406 (2.2x) | 134, 419 (3.1x) | 298, 419 (1.4x), 518 (1.7x) | 259, 593 (2.3x) |
//! | 320, 8^3, 1 | 64 | 151, 316 (2.1x) | 147, 339 (2.3x) | 215, 308 (1.4x), 365 (1.7x) | 205, 421 (2.1x) |
//! | 320, 4^3, 4 | 32 | 107, 202 (1.9x) | 112, 209 (1.9x) | 135, 195 (1.4x), 211 (1.6x) | 135, 245 (1.8x) |
//! | 128, 4^3, 4 | 32 | 130, 169 (1.3x) | 153, 294 (1.9x) | 155, 156 (1.0x), 183 (1.2x) | 225, 371 (1.7x) |
//! | 128, 4^3, 2 | 16 | 91, 97 (1.1x) | 115, 191 (1.7x) | 97, 90 (0.9x), 99 (1.0x) | 152, 217 (1.4x) |
//! | 8, 16^3, 2 | 1024 | 50, 68 (1.4x) | 53, 58 (1.1x) | 68, 31 (0.5x), 32 (0.5x) | 64, 27 (0.4x) |
//!
//! The data gradient is within a tenth of the forward pass. With AVX2 it gains 1.5 to 3.8x (weight gradient 6x and more),
//! without either 1.1 to 1.7x (1.7x and more). Two cores did 1127 where one
//! did 568 (weight gradient, 128, 16^3). `choose` holds the rule that follows.

// Small matrices read best by index.
#![allow(clippy::needless_range_loop)]

mod forward;
mod product;
mod taps;
mod tiles;
mod transform;
mod vector;
mod weight;

use super::Shape;
use super::isa::isa;
use crate::element::{Dtype, Element};
use crate::grid::Grid;
use crate::memory::Scratch;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tiles::Tiles;
pub use vector::{Operands, Path};

/// What is computed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Direction {
    Forward,
    GradInput,
    GradWeight,
}

/// Choices of `vx_conv3d_algorithm`.
const RULE: u32 = 0;
const WINOGRAD: u32 = 2;
const WINOGRAD_PAIRS: u32 = 3;
const RULE_PAIRS: u32 = 4;

/// See `vx_conv3d_algorithm`.
static CHOICE: AtomicU32 = AtomicU32::new(RULE);

exports! {
    /// How 3x3x3 convolutions with stride 1 are computed. 0: by the measured rule, with f32 operands but in the weight
    /// gradient of bf16 tensors; 1: directly; 2: by Winograd where possible; 3: the same, multiplying bf16 tensors as bf16
    /// where the processor can; 4: by the measured rule, multiplying bf16 tensors as bf16 in all directions.
    fn vx_conv3d_algorithm(choice: u32) {
        if choice > RULE_PAIRS {
            return Err(format!("conv3d algorithm {choice} is not offered; use 0 to {RULE_PAIRS}"));
        }
        CHOICE.store(choice, Relaxed);
        Ok(0.0)
    }
}

/// Whether the way of computing follows from measurements alone, not forced.
pub fn free() -> bool {
    matches!(CHOICE.load(Relaxed), RULE | RULE_PAIRS)
}

/// Whether this path can compute the shape: 3x3x3, stride 1, even block sides.
pub fn applies(s: &Shape) -> bool {
    (s.kernel, s.stride) == (3, 1) && s.side.iter().all(|v| v % 2 == 0)
}

/// How to compute on tensors of `E` where Winograd is the faster way, else none.
///
/// bf16 operands double the rate of bf16 tensors, but round the transformed values: relative RMS error 5e-3 of a result
/// in place of 1.7e-3 (the rounding of its storage). By default only the weight gradient takes them, which averages
/// this over all tiles. 40 steps of mae with resenc-s at 32^3, mean loss of the last 20: f32 0.72356, bf16 directly 0.72356,
/// by this rule 0.72357, all operands bf16 0.72358.
pub fn choose<E: Element>(s: &Shape, grid: &Grid, direction: Direction) -> Option<Path> {
    let tiles = grid.blocks.len() * s.out_voxels() / 8;
    let weight = direction == Direction::GradWeight;
    let choice = CHOICE.load(Relaxed);
    let enough = tiles >= if weight { 4 } else { 24 };
    let pays = enough
        && match E::DTYPE {
            Dtype::F32 => s.c_in.min(s.c_out) >= 8,
            // Rows of bf16 that end inside a vector are slow.
            Dtype::Bf16 => s.c_in.is_multiple_of(16) && s.c_out.is_multiple_of(16),
        };
    let wins = matches!(choice, WINOGRAD | WINOGRAD_PAIRS) || free() && pays;
    let pairs = E::DTYPE == Dtype::Bf16 && (matches!(choice, WINOGRAD_PAIRS | RULE_PAIRS) || choice == RULE && weight);
    (wins && applies(s)).then(|| Path::new(isa(), pairs))
}

/// y = conv(x) + bias.
pub fn forward<E: Element>(path: Path, s: &Shape, grid: &Grid, x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    run(path, s, grid, x, w, (27, s.c_in * 27), false, bias, y);
}

/// dx from dy: the forward sum with swapped channels and mirrored taps.
pub fn grad_input<E: Element>(path: Path, s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: &mut [E]) {
    let back = Shape { c_in: s.c_out, c_out: s.c_in, ..*s };
    run(path, &back, grid, dy, w, (s.c_in * 27, 27), true, None, dx);
}

#[allow(clippy::too_many_arguments)]
fn run<E: Element>(
    path: Path,
    s: &Shape,
    grid: &Grid,
    x: &[E],
    w: &[f32],
    stride: (usize, usize),
    flip: bool,
    bias: Option<&[f32]>,
    y: &mut [E],
) {
    let tiles = Tiles { grid, side: s.side };
    assert!(x.len() == grid.blocks.len() * s.in_voxels() * s.c_in && w.len() == s.weight_len());
    assert!(y.len() == grid.blocks.len() * s.out_voxels() * s.c_out);
    let mut memory = Scratch::<f32>::new(forward::weights_len(s.c_in, s.c_out, path.operands));
    let to = memory.as_mut_ptr();
    let weights = forward::Weights { w, c_in: s.c_in, c_out: s.c_out, stride, flip, to };
    (0..s.c_in.div_ceil(forward::STRIP)).into_par_iter().for_each(|index| vector::dispatch(&weights, path, index));
    let mut padded = vec![0f32; s.c_out.next_multiple_of(product::PANEL)];
    if let Some(bias) = bias {
        padded[..s.c_out].copy_from_slice(bias);
    }
    let zeros = Scratch::<E>::zeros(s.side[2] * s.c_in);
    let rows = forward_rows(&tiles, s.c_in);
    let count = tiles.rows().div_ceil(rows);
    let (x, y) = (x.as_ptr(), y.as_mut_ptr());
    let (c_in, c_out) = (s.c_in, s.c_out);
    let work = forward::Forward { tiles, x, y, c_in, c_out, weights: to, bias: &padded, zeros: &zeros, rows };
    (0..count).into_par_iter().for_each(|index| vector::dispatch(&work, path, index));
}

/// Tile rows per group: enough tiles to use the weights often, few enough to stay in the L2 cache and to feed all cores.
fn forward_rows(tiles: &Tiles, c_in: usize) -> usize {
    let most = if c_in <= 32 { 128 } else { 64 };
    let share = tiles.count().div_ceil(rayon::current_num_threads()).next_multiple_of(product::ROWS);
    (share.min(most) / tiles.per_row()).max(1)
}

/// dw from x and dy. The order of the sums depends on the shape only.
pub fn grad_weight<E: Element>(path: Path, s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    let tiles = Tiles { grid, side: s.side };
    assert!(x.len() == grid.blocks.len() * s.in_voxels() * s.c_in && dw.len() == s.weight_len());
    assert!(dy.len() == grid.blocks.len() * s.out_voxels() * s.c_out);
    if tiles.count() == 0 {
        return dw.fill(0.0);
    }
    let most = if s.c_in <= 32 { 128 } else { 64 };
    let rows = (most / tiles.per_row()).max(1);
    // A stretch has 2048 tiles or more, so that its sums cost little beside its products.
    let groups = tiles.rows().div_ceil(rows);
    let stretch = groups.div_ceil((tiles.count() / 2048).clamp(1, 8)) * rows;
    let stretches = tiles.rows().div_ceil(stretch);
    let len = stretches * weight::sums_len(s.c_in, s.c_out);
    let mut memory = Scratch::<f32>::new(len);
    let to = memory.as_mut_ptr();
    let zeros = Scratch::<E>::zeros(s.side[2] * s.c_in);
    let (c_in, c_out, x, dy) = (s.c_in, s.c_out, x.as_ptr(), dy.as_ptr());
    let panels = c_out.div_ceil(product::PANEL);
    let shares = rayon::current_num_threads().div_ceil(4 * stretches).min(panels);
    let per_task = panels.div_ceil(shares);
    let tasks = 4 * stretches * panels.div_ceil(per_task);
    let sums = weight::Sums { tiles, x, dy, c_in, c_out, zeros: &zeros, rows, stretch, panels: per_task, to };
    (0..tasks).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&sums, path, index));
    let finish = weight::Finish { sums: &memory, c_in, c_out, stretches, dw: dw.as_mut_ptr() };
    let blocks = panels * c_in.div_ceil(product::ROWS);
    (0..blocks).into_par_iter().for_each(|index| vector::dispatch(&finish, path, index));
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, isa, reference};
    use super::{Operands, Path};
    use crate::element::{Dtype, Element};
    use crate::grid::Grid;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut s = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
        (0..n)
            .map(|_| {
                s ^= s << 13;
                s ^= s >> 7;
                s ^= s << 17;
                (s >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Root of the mean squared difference, relative to the root mean square of `want`.
    fn error(got: &[f32], want: &[f32]) -> f64 {
        let sum = |f: &dyn Fn(f64, f64) -> f64| got.iter().zip(want).map(|(g, w)| f(*g as f64, *w as f64)).sum::<f64>();
        (sum(&|g, w| (g - w) * (g - w)) / sum(&|_, w| w * w).max(1e-30)).sqrt()
    }

    /// All three directions on tensors of `E`, against the loop nest on the same values.
    fn judge<E: Element>(path: Path, side: [usize; 3], (c_in, c_out): (usize, usize), grid: &Grid) {
        let s = Shape { side, c_in, c_out, kernel: 3, stride: 1 };
        let n = grid.blocks.len() * s.out_voxels();
        let stored = |n: usize, seed: u64| noise(n, seed).into_iter().map(E::from_f32).collect::<Vec<E>>();
        let wide = |v: &[E]| v.iter().map(|v| v.to_f32()).collect::<Vec<f32>>();
        let (x, w, b, dy) = (stored(n * c_in, 1), noise(s.weight_len(), 2), noise(c_out, 3), stored(n * c_out, 4));
        // f32: the order of the sums. bf16 tensors: results are rounded once. bf16 operands: both factors of each product
        // are rounded, the expected error is 5.3e-3.
        let (data, weight) = match (E::DTYPE, path.operands) {
            (Dtype::F32, _) => (2e-6, 2e-6),
            (_, Operands::F32) => (2e-3, 2e-6),
            _ => (8e-3, 8e-3),
        };
        let check = |what: &str, got: &[f32], want: &[f32], most: f64| {
            let e = error(got, want);
            assert!(e < most, "{what} {side:?} {c_in} -> {c_out} {:?} {path:?}: relative RMS error {e:e}", E::DTYPE);
        };
        let (mut y, mut want) = (stored(n * c_out, 5), vec![0.0; n * c_out]);
        super::forward(path, &s, grid, &x, &w, Some(&b), &mut y);
        reference::forward(&s, grid, &wide(&x), &w, Some(&b), &mut want);
        check("forward", &wide(&y), &want, data);
        let (mut dx, mut want) = (stored(n * c_in, 5), vec![0.0; n * c_in]);
        super::grad_input(path, &s, grid, &dy, &w, &mut dx);
        reference::grad_input(&s, grid, &wide(&dy), &w, &mut want);
        check("data gradient", &wide(&dx), &want, data);
        let (mut dw, mut want) = (vec![9.0; w.len()], vec![0.0; w.len()]);
        super::grad_weight(path, &s, grid, &x, &dy, &mut dw);
        reference::grad_weight(&s, grid, &wide(&x), &wide(&dy), &mut want);
        check("weight gradient", &dw, &want, weight);
    }

    fn judge_all<E: Element>(path: Path) {
        let masked = Grid::new(2, [2, 2, 2], &[1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0]).unwrap();
        for (side, channels) in [
            ([2, 2, 2], (16, 16)),
            ([4, 4, 4], (17, 33)),
            ([6, 6, 6], (16, 24)),
            ([2, 4, 6], (40, 16)),
            ([4, 2, 8], (3, 70)),
        ] {
            judge::<E>(path, side, channels, &masked);
        }
        let dense = Grid::new(2, [1, 1, 1], &[1, 1]).unwrap();
        judge::<E>(path, [8, 8, 8], (20, 16), &dense);
        judge::<E>(path, [4, 6, 32], (16, 36), &dense);
        judge::<E>(path, [2, 2, 300], (5, 5), &dense);
    }

    #[test]
    fn every_instruction_set_equals_the_loop_nest_in_f32() {
        isa::available().for_each(|isa| judge_all::<f32>(Path::new(isa, false)));
    }

    #[test]
    fn every_instruction_set_equals_the_loop_nest_in_bf16() {
        isa::available().for_each(|isa| judge_all::<half::bf16>(Path::new(isa, false)));
    }

    #[test]
    fn bf16_operands_equal_the_loop_nest_within_their_rounding() {
        judge_all::<half::bf16>(Path::new(isa::isa(), true));
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let s = Shape { side: [32, 16, 32], c_in: 18, c_out: 70, kernel: 3, stride: 1 };
        let grid = Grid::new(1, [1, 1, 1], &[1]).unwrap();
        let n = s.out_voxels();
        let (x, w, dy) = (noise(n * s.c_in, 1), noise(s.weight_len(), 2), noise(n * s.c_out, 3));
        let path = Path::new(isa::isa(), false);
        let run = |threads: usize| {
            let (mut y, mut dw) = (vec![0.0; n * s.c_out], vec![0.0; w.len()]);
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                super::forward(path, &s, &grid, &x, &w, None, &mut y);
                super::grad_weight(path, &s, &grid, &x, &dy, &mut dw);
            });
            (y, dw)
        };
        assert!(run(1) == run(13));
    }
}
