//! Weight gradient of few tiles, where the sums are larger than the operands: A dy of all tiles first, then per strip of
//! input channels all products of a panel, whose sums go through G^T before they leave the L2 cache.
//!
//! Two cores of a Zen 5, nothing else running, 2026-11-21, best of 12, bf16 pairs, milliseconds by `weight` and this way:
//! 320 to 320, 1 of 6^3: 2.9, 1.1; 640 to 320: 6.4, 2.1; 256 to 256, 54 of 2^3: 2.2, 1.2; 1 of 8^3: 2.0, 1.4; 1 of 12^3:
//! 4.2, 3.9; 512 to 256, 1 of 12^3: 10.6, 7.1.
//!
//! Two cores of a Zen 4, 2026-11-23, bf16 pairs, best of three runs in turn, before and since x and dy change places, so that rows of
//! the gradient leave whole and past the caches: 320 to 320, 1 of 6^3 2.18, 1.69; 1 of 10^3 5.50, 5.01; 256 to 256, 1 of 8^3 2.12, 1.88,
//! in f32 3.49, 3.19.

use super::super::product::{PANEL, ROWS, product};
use super::super::taps::{Gradient, Past};
use super::super::vector::{Kernel, Operand, Operands, Vector};
use super::tiles::{Parts, Tiles};
use super::transform::{Place, gradient, input, matrices};
use crate::element::Element;
use crate::memory::Scratch;
use crate::ops::rows::settle;

/// Whether this way is taken for so many tiles of side `T`.
pub const fn takes<const T: usize>(tiles: usize, c_in: usize) -> bool {
    tiles > 0 && tiles <= if T == 2 { 256 } else { 64 } && c_in > 2 * STRIP
}
/// Input channels per task: their products share a panel of dy while it is in the L1 cache.
pub const STRIP: usize = 32;

/// A dy: words of one matrix `[panel][word][32]`; one line more, or all of them would share cache sets.
fn matrix_len(tiles: usize, c_out: usize, per_word: usize) -> usize {
    c_out.div_ceil(PANEL) * tiles.div_ceil(per_word) * PANEL + 16
}

/// Words of A dy.
pub fn spread_len<const T: usize>(tiles: usize, c_out: usize, operands: Operands) -> usize {
    4 * matrices(T) * matrix_len(tiles, c_out, operands.per_word())
}

/// A dy of all tiles; item `index` is (panel, z index), the z index counting fastest.
pub struct Spread<'a, E, const T: usize> {
    pub tiles: Tiles<'a, T>,
    pub dy: *const E,
    pub c_out: usize,
    pub to: *mut f32,
}
unsafe impl<E, const T: usize> Sync for Spread<'_, E, T> {}

impl<E: Element, const T: usize> Kernel for Spread<'_, E, T> {
    const PAIRS: bool = T == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        unsafe {
            match index % 4 {
                0 => self.plane::<V, O, 0>(index / 4),
                1 => self.plane::<V, O, 1>(index / 4),
                2 => self.plane::<V, O, 2>(index / 4),
                _ => self.plane::<V, O, 3>(index / 4),
            }
        }
    }
}

impl<E: Element, const T: usize> Spread<'_, E, T> {
    #[inline(always)]
    unsafe fn plane<V: Vector, O: Operand<V>, const Z: usize>(&self, panel: usize) {
        let (c_out, count, per_row) = (self.c_out, self.tiles.count(), self.tiles.per_row());
        let [_, sy, sx] = self.tiles.side;
        let matrix = matrix_len(count, c_out, O::PER_WORD);
        let at = self.to.wrapping_add(Z * matrices(T) * matrix + panel * count.div_ceil(O::PER_WORD) * PANEL);
        for row in 0..self.tiles.rows() {
            let voxel = self.tiles.voxel(row);
            let to = Place { at, matrix, tile: PANEL, shared: Some(count) };
            let (strides, rest) = ((sy * sx * c_out, sx * c_out, c_out), c_out - panel * PANEL);
            let tiles = row * per_row..(row + 1) * per_row;
            unsafe {
                let from = self.dy.add(voxel * c_out + panel * PANEL);
                gradient::<V, O, E, Z, T>(from, (rest.min(PANEL), rest), strides, tiles, to);
            }
        }
    }
}

/// dw of one strip of input channels.
pub struct Strip<'a, E, const T: usize> {
    pub tiles: Tiles<'a, T>,
    pub x: Parts<*const E>,
    pub zeros: &'a [E],
    /// From `Spread`.
    pub dy: *const f32,
    pub to: Gradient,
}
unsafe impl<E, const T: usize> Sync for Strip<'_, E, T> {}

impl<E: Element, const T: usize> Kernel for Strip<'_, E, T> {
    const PAIRS: bool = T == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let Gradient { c_in, c_out, .. } = self.to;
        let words = self.tiles.count().div_ceil(O::PER_WORD);
        let first = index * STRIP;
        let channels = STRIP.min(c_in - first);
        let blocks = channels.div_ceil(ROWS);
        let (x_matrix, dy_matrix) = (STRIP * words + 16, matrix_len(self.tiles.count(), c_out, O::PER_WORD));
        let mut memory = Scratch::<f32>::new(4 * matrices(T) * (x_matrix + blocks * ROWS * PANEL));
        let x = memory.as_mut_ptr();
        let sums = x.wrapping_add(4 * matrices(T) * x_matrix);
        // [block][z y x][8][32]
        let block_len = 4 * matrices(T) * ROWS * PANEL;
        unsafe {
            self.transform::<V, O, 0>(first, channels, words, x);
            self.transform::<V, O, 1>(first, channels, words, x.add(matrices(T) * x_matrix));
            self.transform::<V, O, 2>(first, channels, words, x.add(2 * matrices(T) * x_matrix));
            self.transform::<V, O, 3>(first, channels, words, x.add(3 * matrices(T) * x_matrix));
            for panel in 0..c_out.div_ceil(PANEL) {
                let mut to = Past::new(self.to, panel);
                let width = if c_out - panel * PANEL > 16 { 32 } else { 16 };
                for m in 0..4 * matrices(T) {
                    let right = self.dy.add(m * dy_matrix + panel * words * PANEL);
                    for block in 0..blocks {
                        let left = x.add(m * x_matrix + block * ROWS);
                        let to = sums.add(block * block_len + m * ROWS * PANEL);
                        product::<V, O, false>(left, (1, STRIP), words, right, to, width);
                    }
                }
                for block in 0..blocks {
                    let per_z = matrices(T) * ROWS * PANEL;
                    to.finish::<V, T>(sums.add(block * block_len), per_z, 1, first + block * ROWS);
                }
            }
        }
        settle();
    }
}

impl<E: Element, const T: usize> Strip<'_, E, T> {
    /// B^T d of all tiles for z index `Z`, `[y x][word][STRIP]`.
    #[inline(always)]
    unsafe fn transform<V: Vector, O: Operand<V>, const Z: usize>(
        &self,
        first: usize,
        channels: usize,
        words: usize,
        at: *mut f32,
    ) {
        let per_row = self.tiles.per_row();
        for i in 0..self.tiles.rows() {
            let row = self.tiles.row(&self.x, self.zeros.as_ptr(), i);
            let (tiles, shared) = (i * per_row..(i + 1) * per_row, Some(self.tiles.count()));
            let to =
                |c: usize| Place { at: at.wrapping_add(c - first), matrix: STRIP * words + 16, tile: STRIP, shared };
            unsafe { input::<V, O, E, Z, T>(&row, &self.x, first..first + channels, tiles, to) };
        }
    }
}
