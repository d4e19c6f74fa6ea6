//! Forward and data gradient of few tiles and many channels, where the weights are larger than the input: B^T d of all
//! tiles first, then per panel of outputs the weights, transformed strip by strip of input channels and used at once,
//! so that they never leave the L2 cache.
//!
//! Two cores of a Zen 5, 2026-11-21, milliseconds of forward and data gradient by `forward` and this way. In turn, 320 to 320, 1 of
//! 10^3: f32 9.8 and 9.5, 9.3 and 7.9; bf16 pairs 5.6 and 5.3, 4.6 and 4.3; 256 to 256, 1 of 12^3 (216 tiles, not taken): f32 8.2 and
//! 8.7, 10.6 and 9.7. Not in turn, 320 to 320, 1 of 6^3: f32 3.6 and 3.2, 2.4 and 2.4; bf16 pairs 2.1 and 2.2, 1.7 and 1.7.
//! It took the input in strips as the products read it, and the weights asked for ahead: f32 3.6 and 3.1 before.
//! Two cores of a Zen 4, 2026-11-23, bf16 pairs, ten weights in turn: 320 to 320, 1 of 6^3 2.10 and 1.90, 256 to 256, 1 of 8^3 2.18 and 2.00;
//! with the weights of the next strip asked for while one is multiplied 1.77 and 1.87, 1.76 and 1.91.

use super::super::product::{PANEL, ROWS, product};
use super::super::taps::Given;
use super::super::vector::{Kernel, Operand, Operands, Vector, store};
use super::axis::{MOST, outputs};
use super::tiles::{Parts, Tiles};
use super::transform::{Place, input};
use crate::element::Element;
use crate::memory::Scratch;

/// Most tiles for which this way is taken; the sums of more leave the L2 cache too often.
pub const TILES: usize = 128;
/// Words of input channels that are transformed and multiplied together.
pub const STRIP: usize = 32;

/// Words of one matrix `[tile][STRIP]`; one line more, or all 64 would share cache sets.
fn matrix_len(tiles: usize) -> usize {
    tiles.next_multiple_of(ROWS) * STRIP + 16
}

/// Words of B^T d, `[strip][z y x 64][tile][STRIP]`.
pub fn input_len(tiles: usize, c_in: usize, operands: Operands) -> usize {
    c_in.div_ceil(STRIP * operands.per_word()) * 64 * matrix_len(tiles)
}

/// B^T d of all tiles; item `index` is (tile row, z index), the z index counting fastest.
pub struct Input<'a, E> {
    pub tiles: Tiles<'a, 2>,
    pub x: Parts<*const E>,
    pub zeros: &'a [E],
    pub to: *mut f32,
}
unsafe impl<E> Sync for Input<'_, E> {}

impl<E: Element> Kernel for Input<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        unsafe {
            match index % 4 {
                0 => self.row::<V, O, 0>(index / 4),
                1 => self.row::<V, O, 1>(index / 4),
                2 => self.row::<V, O, 2>(index / 4),
                _ => self.row::<V, O, 3>(index / 4),
            }
        }
    }
}

impl<E: Element> Input<'_, E> {
    #[inline(always)]
    unsafe fn row<V: Vector, O: Operand<V>, const Z: usize>(&self, index: usize) {
        let per_row = self.tiles.per_row();
        let matrix = matrix_len(self.tiles.count());
        let row = self.tiles.row(&self.x, self.zeros.as_ptr(), index);
        let to = |c: usize| {
            let word = c / O::PER_WORD;
            let at = self.to.wrapping_add((word / STRIP * 64 + Z * 16) * matrix + word % STRIP);
            Place { at, matrix, tile: STRIP, shared: None }
        };
        let tiles = index * per_row..(index + 1) * per_row;
        unsafe { input::<V, O, E, Z, 2>(&row, &self.x, 0..self.x.channels(), tiles, to) };
    }
}

/// y of one panel of output channels.
pub struct Panel<'a, E> {
    pub tiles: Tiles<'a, 2>,
    /// From `Input`.
    pub input: *const f32,
    pub given: Given<'a>,
    /// Lines of the weights of a strip.
    pub lines: &'a [u32],
    /// One value per output channel, zero padded to whole panels.
    pub bias: &'a [f32],
    pub y: Parts<*mut E>,
}
unsafe impl<E> Sync for Panel<'_, E> {}

impl<E: Element> Kernel for Panel<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let Given { c_in, c_out, .. } = self.given;
        let tiles = self.tiles.count().next_multiple_of(ROWS);
        let matrix = matrix_len(self.tiles.count());
        let columns = PANEL.min(c_out - index * PANEL);
        let width = if columns > 16 { 32 } else { 16 };
        let (strip_len, sums_len) = (STRIP * PANEL + 16, tiles * PANEL + 16);
        let mut memory = Scratch::<f32>::new(64 * (strip_len + sums_len));
        let weights = memory.as_mut_ptr();
        let sums = weights.wrapping_add(64 * strip_len);
        let words = c_in.div_ceil(O::PER_WORD);
        let per_product = self.lines.len().div_ceil(64 * tiles / ROWS);
        unsafe {
            for first in (0..words).step_by(STRIP) {
                let strip = STRIP.min(words - first);
                for word in 0..strip {
                    let row = |m: usize| weights.wrapping_add(m * strip_len + word * PANEL);
                    self.given.put::<V, O, 2>((index, first + word), None, row);
                }
                let input = self.input.add(first / STRIP * 64 * matrix);
                // The weights of the next strip come from memory while this one is multiplied.
                let after = (first + STRIP) * O::PER_WORD;
                let mut soon = self.given.soon(after, index * PANEL, self.lines, per_product);
                for m in 0..64 {
                    for t in (0..tiles).step_by(ROWS) {
                        soon.fetch();
                        let left = input.add(m * matrix + t * STRIP);
                        let (right, to) = (weights.add(m * strip_len), sums.add(m * sums_len + t * PANEL));
                        if first == 0 {
                            product::<V, O, false>(left, (STRIP, 1), strip, right, to, width);
                        } else {
                            product::<V, O, true>(left, (STRIP, 1), strip, right, to, width);
                        }
                    }
                }
            }
            let per_row = self.tiles.per_row();
            for t in 0..self.tiles.count() {
                let voxel = self.tiles.voxel(t / per_row) + 2 * (t % per_row);
                self.finish::<V, O>(sums.add(t * PANEL), sums_len, voxel, (index * PANEL, columns));
            }
        }
    }
}

impl<E: Element> Panel<'_, E> {
    /// A^T of one tile along the three axes, from sums `matrix` values apart to `columns` channels of y from `channel` on.
    #[inline(always)]
    unsafe fn finish<V: Vector, O: Operand<V>>(
        &self,
        sums: *const f32,
        matrix: usize,
        voxel: usize,
        (channel, columns): (usize, usize),
    ) {
        let [_, sy, sx] = self.tiles.side;
        for j in (0..columns).step_by(V::LANES) {
            unsafe {
                let load = |m: usize| V::load(sums.add(m * matrix + j));
                let bias = V::load(self.bias.as_ptr().add(channel + j));
                let (part, first) = self.y.find(channel + j);
                let (y, c) = (self.y.of[part].add(first), self.y.c[part]);
                let zero = V::splat(0.0);
                let mut planes = [[zero; MOST]; 4]; // [y x][z]
                for z in 0..4 {
                    let mut half = [[zero; MOST]; 2]; // [x][y of the tile]
                    for v in 0..4 {
                        let m = 16 * z + 4 * v;
                        let q = outputs::<V, 2>([load(m), load(m + 1), load(m + 2), load(m + 3), zero, zero]);
                        (half[0][v], half[1][v]) = (q[0], q[1]);
                    }
                    for x in 0..2 {
                        let q = outputs::<V, 2>(half[x]);
                        (planes[x][z], planes[2 + x][z]) = (q[0], q[1]);
                    }
                }
                for (yx, planes) in planes.iter().enumerate() {
                    for (z, value) in outputs::<V, 2>(*planes)[..2].iter().enumerate() {
                        let voxel = voxel + (z * sy + yx / 2) * sx + yx % 2;
                        store::<V, O, E>(value.add(bias), y.add(voxel * c), c - first);
                    }
                }
            }
        }
    }
}
