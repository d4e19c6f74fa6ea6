//! Forward, and the data gradient as the same sum with flipped taps and swapped channels.
//!
//! Per group of tile rows and per z index of the transformed tile (4 of them): the input transform writes 16 matrices
//! `[tile][c_in]` (wide tiles: 36); then, per 32 output channels and 8 tiles (wide: 24), as many products go to a buffer that
//! stays in the L1 cache (wide: L2) and from there through A^T into the two output planes of the tile. Splitting by z index keeps the
//! transformed input four times smaller and costs nothing, since each row of B^T has two terms.

use super::super::product::{PANEL, ROWS, product};
use super::super::taps::{Given, TAPS};
use super::super::vector::{Kernel, Operand, Operands, Vector, store};
use super::axis::{MOST, outputs, taps};
use super::tiles::{Ahead, Parts, TileRow, Tiles, claim};
use super::transform::{Place, input, matrices};
use crate::element::Element;
use crate::memory::Scratch;
use crate::ops::norm::passes::add_squares;

/// Words of one matrix of weights of a panel; one line more than they need, or all matrices would share cache sets.
fn matrix_len(c_in: usize, per_word: usize) -> usize {
    c_in.div_ceil(per_word) * PANEL + 16
}

/// Words of the transformed weights: `[z 4][panel of 32 outputs][y x][c_in / operands per word][32]`.
pub fn weights_len<const T: usize>(c_in: usize, c_out: usize, operands: Operands) -> usize {
    4 * matrices(T) * c_out.div_ceil(PANEL) * matrix_len(c_in, operands.per_word())
}

/// Tiles whose products are taken before they go through A^T: as many as keep them in the L1 cache, or, of 2x4x4, whose weights
/// are too large to come from the L2 cache for every 8.
const fn span(side: usize) -> usize {
    if side == 2 { ROWS } else { 3 * ROWS }
}

/// Words of input channels that are summed in one go. A^T of tiles of 2x4x4 enlarges the rounding errors of long sums: 256 channels
/// in one go have a relative RMS error of 1.9e-6.
const fn chunk(side: usize) -> usize {
    if side == 2 { usize::MAX } else { 32 }
}

/// Input channels whose weights are transformed together: their taps share cache lines.
pub const STRIP: usize = 8;

impl Given<'_> {
    /// G applied to the input channels of one word and a panel of output channels: rows of 32 words `[z][y x]`, where `row`
    /// says. What lies `next` values on is asked for.
    #[inline(always)]
    pub unsafe fn put<V: Vector, O: Operand<V>, const T: usize>(
        &self,
        (panel, word): (usize, usize),
        next: Option<usize>,
        row: impl Fn(usize) -> *mut f32,
    ) {
        for j in (0..PANEL).step_by(V::LANES) {
            let first = panel * PANEL + j;
            let mut planes = [[[unsafe { V::splat(0.0) }; 9]; 4]; 2];
            for (half, to) in planes.iter_mut().enumerate().take(O::PER_WORD) {
                unsafe { *to = along_z::<V>(self.taps(word * O::PER_WORD + half, first, next)) };
            }
            for z in 0..4 {
                let values = unsafe { [plane::<V, T>(&planes[0][z]), plane::<V, T>(&planes[1][z])] };
                for m in 0..matrices(T) {
                    let to = row(z * matrices(T) + m).wrapping_add(j);
                    unsafe { O::put_words([values[0][m], values[1][m]], to) };
                    claim(to.wrapping_add(PANEL));
                }
            }
        }
    }
}

/// G along z: `[z][y x]`.
#[inline(always)]
unsafe fn along_z<V: Vector>(g: [V; TAPS]) -> [[V; 9]; 4] {
    unsafe {
        let mut out = [[V::splat(0.0); 9]; 4];
        for yx in 0..9 {
            let q = taps::<V, 2>([g[yx], g[9 + yx], g[18 + yx]]);
            for z in 0..4 {
                out[z][yx] = q[z];
            }
        }
        out
    }
}

/// G along y and x: `[y][x]`.
#[inline(always)]
unsafe fn plane<V: Vector, const T: usize>(g: &[V; 9]) -> [V; matrices(4)] {
    unsafe {
        let mut b = [[V::splat(0.0); 3]; MOST]; // [y][x]
        for x in 0..3 {
            let q = taps::<V, T>([g[x], g[3 + x], g[6 + x]]);
            for y in 0..T + 2 {
                b[y][x] = q[y];
            }
        }
        let mut out = [V::splat(0.0); matrices(4)];
        for y in 0..T + 2 {
            out[(T + 2) * y..][..T + 2].copy_from_slice(&taps::<V, T>(b[y])[..T + 2]);
        }
        out
    }
}

/// G applied to all weights; item `index` is `STRIP` input channels.
pub struct Weights<'a, const T: usize> {
    pub given: Given<'a>,
    pub to: *mut f32,
}
unsafe impl<const T: usize> Sync for Weights<'_, T> {}

impl<const T: usize> Kernel for Weights<'_, T> {
    const PAIRS: bool = T == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let Given { c_in, c_out, .. } = self.given;
        let (panels, matrix) = (c_out.div_ceil(PANEL), matrix_len(c_in, O::PER_WORD));
        let (strip, next) = (STRIP / O::PER_WORD, Some(PANEL * self.given.stride.1));
        for panel in 0..panels {
            for word in index * strip..((index + 1) * strip).min(c_in.div_ceil(O::PER_WORD)) {
                let to = self.to.wrapping_add(panel * matrices(T) * matrix + word * PANEL);
                let row =
                    |m: usize| to.wrapping_add((m / matrices(T) * panels * matrices(T) + m % matrices(T)) * matrix);
                unsafe { self.given.put::<V, O, T>((panel, word), next, row) };
            }
        }
    }
}

/// y = conv(x) + bias on tile rows `index * rows ..` of the block list.
pub struct Forward<'a, E, const T: usize> {
    pub tiles: Tiles<'a, T>,
    pub x: Parts<*const E>,
    pub y: Parts<*mut E>,
    pub c_in: usize,
    pub c_out: usize,
    /// From `Weights`.
    pub weights: *const f32,
    /// One value per output channel, zero padded to whole panels.
    pub bias: &'a [f32],
    /// A row of `side[2]` voxels of zeros.
    pub zeros: &'a [E],
    /// Tile rows per group.
    pub rows: usize,
    /// Sums of y and of its squares per tile row, `[tile row][2][c_out]`, where a norm follows (y is then one tensor): taken
    /// while the group is in the L2 cache.
    pub channels: Option<*mut f64>,
}
unsafe impl<E, const T: usize> Sync for Forward<'_, E, T> {}

/// Memory of one group.
struct Group {
    input: Place,
    products: *mut f32,
    /// The two output planes: `[panel][tile][z 2][y x][32]`.
    sums: *mut f32,
    /// First output voxel of each tile.
    voxels: Vec<usize>,
}

impl<E: Element, const T: usize> Kernel for Forward<'_, E, T> {
    const PAIRS: bool = T == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let rows = self.group_rows(index);
        let tiles = rows.len() * self.tiles.per_row();
        let tile = self.c_in.next_multiple_of(16) / O::PER_WORD;
        let matrix = tiles.next_multiple_of(ROWS) * tile + 16; // 64 bytes more, or all matrices would share cache sets
        let panels = self.c_out.div_ceil(PANEL);
        let len = matrices(T) * (matrix + span(T) * PANEL + 16) + panels * tiles * 2 * T * T * PANEL;
        let mut memory = Scratch::<f32>::new(len);
        let at = memory.as_mut_ptr();
        let products = at.wrapping_add(matrices(T) * matrix);
        let sums = products.wrapping_add(matrices(T) * (span(T) * PANEL + 16));
        let calls = 4 * matrices(T) * panels * tiles.div_ceil(ROWS);
        let row = (self.tiles.side[2], self.x.c);
        let mut ahead = Ahead::new::<E, T>(&self.group_rows(index + 1), &[0, 1, 2, 3], row, self.zeros.as_ptr(), calls);
        let voxels = rows.iter().flat_map(|row| (0..tiles / rows.len()).map(|i| row.voxel + T * i)).collect();
        let group = Group { input: Place { at, matrix, tile, shared: None }, products, sums, voxels };
        unsafe {
            self.step::<V, O, 0>(&rows, &group, &mut ahead);
            self.step::<V, O, 1>(&rows, &group, &mut ahead);
            self.step::<V, O, 2>(&rows, &group, &mut ahead);
            self.step::<V, O, 3>(&rows, &group, &mut ahead);
            if let Some(channels) = self.channels {
                for (i, row) in rows.iter().enumerate() {
                    self.add_up(row.voxel, channels.add((index * self.rows + i) * 2 * self.c_out));
                }
            }
        }
    }
}

impl<E: Element, const T: usize> Forward<'_, E, T> {
    /// Sums of the outputs of one tile row.
    unsafe fn add_up(&self, voxel: usize, to: *mut f64) {
        let c = self.c_out;
        let (sum, square) = unsafe { std::slice::from_raw_parts_mut(to, 2 * c) }.split_at_mut(c);
        sum.fill(0.0);
        square.fill(0.0);
        for row in self.tiles.output_rows(voxel) {
            let row = unsafe { std::slice::from_raw_parts(self.y.of[0].add(row * c), self.tiles.side[2] * c) };
            add_squares(row, sum, square);
        }
    }
    /// Tile rows of one group; none past the last.
    fn group_rows(&self, index: usize) -> Vec<TileRow<E>> {
        (index * self.rows..((index + 1) * self.rows).min(self.tiles.rows()))
            .map(|r| self.tiles.row(&self.x, self.zeros.as_ptr(), r))
            .collect()
    }

    /// Where y has a channel of a voxel, values between its voxels, rows and planes there, and channels that follow.
    #[inline(always)]
    fn output(&self, voxel: usize, channel: usize) -> (*mut E, [usize; 3], usize) {
        let [_, sy, sx] = self.tiles.side;
        let (part, first) = self.y.find(channel);
        let c = self.y.c[part];
        (self.y.of[part].wrapping_add(voxel * c + first), [c, sx * c, sy * sx * c], c - first)
    }

    /// z index `Z` of one group.
    #[inline(always)]
    unsafe fn step<V: Vector, O: Operand<V>, const Z: usize>(
        &self,
        rows: &[TileRow<E>],
        group: &Group,
        ahead: &mut Ahead,
    ) {
        let (per_row, tiles) = (self.tiles.per_row(), group.voxels.len());
        let place = group.input;
        let panels = self.c_out.div_ceil(PANEL);
        let depth = self.c_in.div_ceil(O::PER_WORD);
        // Channels whose output is one cache line.
        let line = if self.y.c[0].is_multiple_of(PANEL) { 64 / size_of::<E>() } else { 16 };
        unsafe {
            for (i, row) in rows.iter().enumerate() {
                let of_row = i * per_row..(i + 1) * per_row;
                input::<V, O, E, Z, T>(row, &self.x, 0..self.c_in, of_row, |c| place.plus(c / O::PER_WORD));
            }
            let product_matrix = span(T) * PANEL + 16;
            for panel in 0..panels {
                let columns = (self.c_out - panel * PANEL).min(PANEL);
                let width = if columns > 16 { 32 } else { 16 };
                let matrix = matrix_len(self.c_in, O::PER_WORD);
                let weights = self.weights.add((Z * panels + panel) * matrices(T) * matrix);
                for first in (0..tiles).step_by(span(T)) {
                    let end = (first + span(T)).min(tiles);
                    for m in 0..matrices(T) {
                        for first_of in (first..end).step_by(ROWS) {
                            ahead.fetch();
                            let tile = first_of + m / T;
                            if Z >= 2 && m < ROWS * T && tile < tiles {
                                let voxel = group.voxels[tile];
                                for j in (0..columns).step_by(line) {
                                    let (to, [sx, sy, sz], _) = self.output(voxel, panel * PANEL + j);
                                    let to = to.add((Z - 2) * sz + m % T * sy);
                                    (0..T).for_each(|x| claim(to.add(x * sx) as *const f32));
                                }
                            }
                            let left = place.at.add(m * place.matrix + first_of * place.tile);
                            let right = weights.add(m * matrix);
                            let to = group.products.add(m * product_matrix + (first_of - first) * PANEL);
                            let steps = (place.tile, 1);
                            product::<V, O, false>(left, steps, depth.min(chunk(T)), right, to, width);
                            for k in (chunk(T)..depth).step_by(chunk(T)) {
                                let (left, right) = (left.add(k), right.add(k * PANEL));
                                product::<V, O, true>(left, steps, (depth - k).min(chunk(T)), right, to, width);
                            }
                        }
                    }
                    for tile in first..end {
                        self.finish::<V, O, Z>(
                            (group.products.add((tile - first) * PANEL), product_matrix),
                            group.sums.add((panel * tiles + tile) * 2 * T * T * PANEL),
                            (group.voxels[tile], panel * PANEL, columns),
                        );
                    }
                }
            }
        }
    }

    /// A^T of one tile along x and y, added to or taken from its two output planes; each plane leaves when complete.
    #[inline(always)]
    unsafe fn finish<V: Vector, O: Operand<V>, const Z: usize>(
        &self,
        (products, matrix): (*const f32, usize),
        sums: *mut f32,
        (voxel, channel, columns): (usize, usize, usize),
    ) {
        for j in (0..columns).step_by(V::LANES) {
            unsafe {
                let mut half = [[V::splat(0.0); MOST]; 4]; // [x][y of the tile]
                for v in 0..T + 2 {
                    let mut m = [V::splat(0.0); MOST];
                    for x in 0..T + 2 {
                        m[x] = V::load(products.add(((T + 2) * v + x) * matrix + j));
                    }
                    let q = outputs::<V, T>(m);
                    for x in 0..T {
                        half[x][v] = q[x];
                    }
                }
                let bias = V::load(self.bias.as_ptr().add(channel + j));
                let (y, [sx, sy, sz], n) = self.output(voxel, channel + j);
                for x in 0..T {
                    let q = outputs::<V, T>(half[x]);
                    for v in 0..T {
                        let low = sums.add((v * T + x) * PANEL + j);
                        let high = low.add(T * T * PANEL);
                        let to = y.add(v * sy + x * sx);
                        match Z {
                            0 => q[v].add(bias).store(low),
                            1 => {
                                V::load(low).add(q[v]).store(low);
                                q[v].add(bias).store(high);
                            }
                            2 => {
                                store::<V, O, E>(V::load(low).add(q[v]), to, n);
                                V::load(high).sub(q[v]).store(high);
                            }
                            _ => store::<V, O, E>(V::load(high).sub(q[v]), to.add(sz), n),
                        }
                    }
                }
            }
        }
    }
}
