//! Weight gradient: dg = G^T [sum over tiles of (A dy) . (B^T d)], the transpose of the forward pass.
//!
//! The tiles are cut into stretches of fixed extent; a task is one stretch and one z index of the transformed tile, or all
//! of them; where cores outnumber these, output channels are shared out too. A task keeps 16 sums (tiles of
//! 2x4x4: 36) `[c_out/32][c_in/8][y x][8][32]` over its tiles; the last step adds the stretches in turn and applies G^T.

use super::super::product::{PANEL, ROWS, product};
use super::super::taps::{Gradient, Past, TAPS};
use super::super::vector::{Kernel, Operand, Vector};
use super::axis::{MOST, taps_back};
use super::tiles::{Ahead, Parts, TileRow, Tiles, soon};
use super::transform::{PLANES, Place, gradient, input, matrices};
use crate::element::Element;
use crate::memory::Scratch;
use crate::ops::rows::settle;
use std::ops::Range;

/// Values between two blocks of sums; one line more than the matrices, or all blocks would share cache sets.
const fn block_len(side: usize) -> usize {
    matrices(side) * ROWS * PANEL + 16
}

/// Most values of the sums of a stretch that stay in the L2 cache beside what they come from.
pub const TOGETHER: usize = 145 << 10;

/// Sums of one stretch and all z indices, in values.
pub fn sums_len<const T: usize>(c_in: usize, c_out: usize) -> usize {
    4 * c_out.div_ceil(PANEL) * c_in.div_ceil(ROWS) * block_len(T)
}

/// Sums of one task: item `index` is (stretch, share of the output channels) and, unless these are taken together, z
/// index, which counts fastest.
pub struct Sums<'a, E, const T: usize> {
    pub tiles: Tiles<'a, T>,
    pub x: Parts<*const E>,
    pub dy: *const E,
    pub c_in: usize,
    pub c_out: usize,
    pub zeros: &'a [E],
    /// Tile rows per group, and per stretch.
    pub rows: usize,
    pub stretch: usize,
    /// Panels of output channels per task; they do not touch the order of the sums, so any number of cores may have work.
    pub panels: usize,
    /// One task for all z indices, so that x and dy are read from memory once: where the sums stay in the L2 cache.
    pub together: bool,
    /// `sums_len` values per stretch.
    pub to: *mut f32,
}
unsafe impl<E, const T: usize> Sync for Sums<'_, E, T> {}

/// Memory of one task: transformed x and dy, words per channel.
struct Task {
    x: Place,
    dy: Place,
    most: usize,
    share: Range<usize>,
}

impl<E: Element, const T: usize> Kernel for Sums<'_, E, T> {
    const PAIRS: bool = T == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let panels = self.c_out.div_ceil(PANEL);
        let shares = panels.div_ceil(self.panels);
        let (z, index) = if self.together { (0..4, index) } else { (index % 4..index % 4 + 1, index / 4) };
        let (share, stretch) = (index % shares, index / shares);
        let share = share * self.panels..((share + 1) * self.panels).min(panels);
        let most = (self.rows * self.tiles.per_row()).div_ceil(O::PER_WORD);
        let (x_len, dy_len) = (self.c_in.div_ceil(PANEL) * most * PANEL + 16, share.len() * most * PANEL + 16);
        let mut memory = Scratch::<f32>::new(matrices(T) * (x_len + dy_len));
        let at = memory.as_mut_ptr();
        let x = Place { at, matrix: x_len, tile: PANEL, shared: None };
        let dy = Place { at: at.wrapping_add(matrices(T) * x_len), matrix: dy_len, tile: PANEL, shared: None };
        let calls = matrices(T) * share.len() * self.c_in.div_ceil(ROWS);
        let task = Task { x, dy, most, share };
        let (begin, end) = (stretch * self.stretch, ((stretch + 1) * self.stretch).min(self.tiles.rows()));
        let group_rows = |first: usize| -> Vec<TileRow<E>> {
            let rows = first..end.min(first + self.rows);
            rows.map(|r| self.tiles.row(&self.x, self.zeros.as_ptr(), r)).collect()
        };
        let per_z = sums_len::<T>(self.c_in, self.c_out) / 4;
        for first in (begin..end).step_by(self.rows) {
            let (rows, next) = (group_rows(first), group_rows(first + self.rows));
            let fresh = first == begin;
            for z in z.clone() {
                // What the next group reads first; with all z indices here each plane once.
                let planes: &[usize] = match (self.together, z) {
                    (true, 0) => &[0, 2],
                    (true, 1) => &[1],
                    (true, 2) => &[],
                    (true, _) => &[3],
                    (false, z) => &[PLANES[z].0, PLANES[z].1],
                };
                let row = (self.tiles.side[2], self.x.c);
                let mut ahead = Ahead::new::<E, T>(&next, planes, row, self.zeros.as_ptr(), calls);
                if !self.together || z == 2 {
                    for row in &next {
                        self.gradient_rows(row.voxel, &task.share, |from, n, values| {
                            ahead.and(from, n, values, self.c_out)
                        });
                    }
                }
                unsafe {
                    let to = self.to.add((stretch * 4 + z) * per_z);
                    match z {
                        0 => self.group::<V, O, 0>(&task, &rows, fresh, ahead, to),
                        1 => self.group::<V, O, 1>(&task, &rows, fresh, ahead, to),
                        2 => self.group::<V, O, 2>(&task, &rows, fresh, ahead, to),
                        _ => self.group::<V, O, 3>(&task, &rows, fresh, ahead, to),
                    }
                }
            }
        }
    }
}

impl<E: Element, const T: usize> Sums<'_, E, T> {
    /// The rows of dy of a tile row: its first value, voxels, and values of each that a task reads.
    fn gradient_rows(&self, voxel: usize, share: &Range<usize>, mut each: impl FnMut(*const E, usize, usize)) {
        let (first, end) = (share.start * PANEL, self.c_out.min(share.end * PANEL));
        for row in self.tiles.output_rows(voxel) {
            each(self.dy.wrapping_add(row * self.c_out + first), self.tiles.side[2], end - first);
        }
    }

    /// z index `Z` of one group.
    #[inline(always)]
    unsafe fn group<V: Vector, O: Operand<V>, const Z: usize>(
        &self,
        task: &Task,
        rows: &[TileRow<E>],
        fresh: bool,
        mut ahead: Ahead,
        to: *mut f32,
    ) {
        let (c_in, c_out, per_row) = (self.c_in, self.c_out, self.tiles.per_row());
        let [_, sy, sx] = self.tiles.side;
        let strides = (sy * sx * c_out, sx * c_out, c_out);
        let &Task { most, ref share, .. } = task;
        let shared = Some(rows.len() * per_row);
        let (x, dy) = (Place { shared, ..task.x }, Place { shared, ..task.dy });
        unsafe {
            for (i, row) in rows.iter().enumerate() {
                let tiles = i * per_row..(i + 1) * per_row;
                let place = |c: usize| x.plus(c / PANEL * most * PANEL + c % PANEL);
                input::<V, O, E, Z, T>(row, &self.x, 0..c_in, tiles.clone(), place);
                for panel in share.clone() {
                    let to = dy.plus((panel - share.start) * most * PANEL);
                    let (from, rest) = (self.dy.add(row.voxel * c_out + panel * PANEL), c_out - panel * PANEL);
                    gradient::<V, O, E, Z, T>(from, (rest.min(PANEL), rest), strides, tiles.clone(), to);
                }
            }
            let steps = (rows.len() * per_row).div_ceil(O::PER_WORD);
            for m in 0..matrices(T) {
                for panel in share.clone() {
                    let width = if c_out - panel * PANEL > 16 { 32 } else { 16 };
                    let right = dy.at.add(m * dy.matrix + (panel - share.start) * most * PANEL);
                    for c in (0..c_in).step_by(ROWS) {
                        ahead.fetch();
                        let left = x.at.add(m * x.matrix + c / PANEL * most * PANEL + c % PANEL);
                        let block = panel * c_in.div_ceil(ROWS) + c / ROWS;
                        let to = to.add(block * block_len(T) + m * ROWS * PANEL);
                        if fresh {
                            product::<V, O, false>(left, (1, PANEL), steps, right, to, width);
                        } else {
                            product::<V, O, true>(left, (1, PANEL), steps, right, to, width);
                        }
                    }
                }
            }
        }
    }
}

/// dw from the sums: stretches in turn, then G^T along all axes. Item `index` is one block of 8 inputs x 32 outputs.
pub struct Finish<'a, const T: usize> {
    pub sums: &'a [f32],
    pub stretches: usize,
    pub to: Gradient,
}
unsafe impl<const T: usize> Sync for Finish<'_, T> {}

impl<const T: usize> Kernel for Finish<'_, T> {
    const PAIRS: bool = T == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let blocks = self.to.c_in.div_ceil(ROWS);
        let per_z = sums_len::<T>(self.to.c_in, self.to.c_out) / 4;
        let sums = self.sums[index * block_len(T)..].as_ptr();
        let mut to = Past::new(self.to, index / blocks);
        unsafe { to.finish::<V, T>(sums, per_z, self.stretches, index % blocks * ROWS) };
        settle();
    }
}

/// Rows of sums between the one that is read and the one that is asked for.
const AHEAD: usize = 2;

impl Past {
    /// Writes a block of 8 inputs x 32 outputs from its sums `[y x][8][32]`, which lie `per_z` values apart for each z index
    /// and 4 of these for each stretch.
    #[inline(always)]
    pub unsafe fn finish<V: Vector, const T: usize>(
        &mut self,
        sums: *const f32,
        per_z: usize,
        stretches: usize,
        first: usize,
    ) {
        for r in 0..ROWS.min(self.inputs() - first) {
            for j in (0..self.columns).step_by(V::LANES) {
                unsafe {
                    let mut b = [[V::splat(0.0); 9]; 4]; // [z][y x]
                    for z in 0..4 {
                        let mut a = [[V::splat(0.0); 3]; MOST]; // [y][x]
                        for y in 0..T + 2 {
                            let mut m = [V::splat(0.0); MOST];
                            for x in 0..T + 2 {
                                let from = sums.add(z * per_z + (((T + 2) * y + x) * ROWS + r) * PANEL + j);
                                soon(from.wrapping_add(AHEAD * PANEL));
                                m[x] = V::load(from);
                                for s in 1..stretches {
                                    m[x] = m[x].add(V::load(from.add(s * 4 * per_z)));
                                }
                            }
                            a[y] = taps_back::<V, T>(m);
                        }
                        for x in 0..3 {
                            let q = taps_back::<V, T>(a.map(|row| row[x]));
                            for y in 0..3 {
                                b[z][y * 3 + x] = q[y];
                            }
                        }
                    }
                    let mut g = [V::splat(0.0); TAPS];
                    for yx in 0..9 {
                        let (zero, b) = (V::splat(0.0), b.map(|plane| plane[yx]));
                        let q = taps_back::<V, 2>([b[0], b[1], b[2], b[3], zero, zero]);
                        for z in 0..3 {
                            g[z * 9 + yx] = q[z];
                        }
                    }
                    self.put(g, first + r, j);
                }
            }
            unsafe { self.end(first + r) };
        }
    }
}
