//! B^T d and A dy of tile rows, from the transforms of `axis` along z (always F(2, 3)), y and x.

use super::super::vector::{Lanes, Operand, Put, Vector, load};
use super::axis::{MOST, inputs, spread};
use super::tiles::{Parts, Row, TileRow};
use crate::element::Element;
use std::ops::Range;

/// The two planes that row `Z` of B^T combines along z: the difference, or for row 1 the sum.
pub const PLANES: [(usize, usize); 4] = [(0, 2), (1, 2), (2, 1), (1, 3)];

/// Matrices of one z index: the products of a tile along y and x.
pub const fn matrices(side: usize) -> usize {
    (side + 2) * (side + 2)
}

/// One column of a tile's input: row `Z` of B^T along z, then B^T along y. `from` picks the part of each row.
#[inline(always)]
unsafe fn column<V: Lanes, E: Element, const Z: usize, const T: usize, const WHOLE: bool>(
    (p, q): &([*const E; MOST], [*const E; MOST]),
    at: usize,
    n: usize,
) -> [V; MOST] {
    unsafe {
        let mut d = [V::splat(0.0); MOST];
        for y in 0..T + 2 {
            let (a, b) = (load::<V, E, WHOLE>(p[y].add(at), n), load::<V, E, WHOLE>(q[y].add(at), n));
            d[y] = if Z == 1 { a.add(b) } else { a.sub(b) };
        }
        inputs::<V, T>(d)
    }
}

/// Where a transformed operand goes, in 32-bit words: distance of the matrices of one z index, and of its tiles, or
/// where words hold operands of neighbouring tiles, of these groups of tiles.
#[derive(Clone, Copy)]
pub struct Place {
    pub at: *mut f32,
    pub matrix: usize,
    pub tile: usize,
    /// Where words hold operands of neighbouring tiles, how many tiles there are; otherwise of neighbouring channels.
    pub shared: Option<usize>,
}

impl Place {
    /// The same, channels on.
    pub fn plus(self, words: usize) -> Place {
        Place { at: self.at.wrapping_add(words), ..self }
    }
    #[inline(always)]
    unsafe fn put<L: Lanes, P: Put<L>>(&self, value: L, tile: usize, matrix: usize) {
        unsafe {
            let at = self.at.add(matrix * self.matrix);
            if self.shared.is_some() {
                P::put_half(value, tile % P::PER_WORD, at.add(tile / P::PER_WORD * self.tile));
            } else {
                P::put(value, at.add(tile * self.tile));
            }
        }
    }
    /// Completes the words of the last tile, once all up to `end` are there.
    #[inline(always)]
    unsafe fn finish<L: Lanes, P: Put<L>, const T: usize>(&self, end: usize) {
        if self.shared == Some(end) && !end.is_multiple_of(P::PER_WORD) {
            (0..matrices(T)).for_each(|m| unsafe { self.put::<L, P>(L::splat(0.0), end, m) });
        }
    }
}

/// B^T d of one tile row for z index `Z` and channels `channels`, as tiles `tiles` of where `to` says that a channel goes.
#[inline(always)]
pub unsafe fn input<V: Vector, O: Operand<V>, E: Element, const Z: usize, const T: usize>(
    row: &TileRow<E>,
    x: &Parts<*const E>,
    channels: Range<usize>,
    tiles: Range<usize>,
    to: impl Fn(usize) -> Place,
) {
    let mut c = channels.start;
    while c < channels.end {
        let (part, first) = x.find(c);
        let (rows, width, n) = (&row.rows[part], x.c[part], x.c[part] - first);
        let (to, tiles) = (to(c), tiles.clone());
        unsafe {
            let strip = c.is_multiple_of(O::Strip::LANES) && n.min(channels.end - c) >= O::Strip::LANES;
            if O::Strip::LANES > V::LANES && strip {
                input_row::<O::Strip, O::OfStrip, E, Z, T, true>(rows, (first, n), width, tiles, to);
                c += O::Strip::LANES;
                continue;
            }
            if n >= V::LANES {
                input_row::<V, O, E, Z, T, true>(rows, (first, n), width, tiles, to);
            } else {
                input_row::<V, O, E, Z, T, false>(rows, (first, n), width, tiles, to);
            }
            c += V::LANES;
        }
    }
}

/// The same in rows of `c` channels, of which `n` are left from `first` on. Neighbouring tiles share two columns.
#[inline(always)]
unsafe fn input_row<L: Lanes, P: Put<L>, E: Element, const Z: usize, const T: usize, const WHOLE: bool>(
    rows: &[[Row<E>; MOST]; 4],
    (first, n): (usize, usize),
    c: usize,
    tiles: Range<usize>,
    to: Place,
) {
    unsafe {
        let (p, q) = (&rows[PLANES[Z].0], &rows[PLANES[Z].1]);
        let left = (p.map(|r| r.left), q.map(|r| r.left));
        let own = (p.map(|r| r.own), q.map(|r| r.own));
        let right = (p.map(|r| r.right), q.map(|r| r.right));
        if T == 2 {
            // A result leaves as soon as its columns are there, so that three columns are alive at most.
            let (mut c0, mut c1) =
                (column::<L, E, Z, T, WHOLE>(&left, first, n), column::<L, E, Z, T, WHOLE>(&own, first, n));
            let mut at = first;
            for tile in tiles.clone() {
                at += c;
                let c2 = column::<L, E, Z, T, WHOLE>(&own, at, n);
                for y in 0..4 {
                    to.put::<L, P>(c0[y].sub(c2[y]), tile, 4 * y);
                }
                for y in 0..4 {
                    to.put::<L, P>(c1[y].add(c2[y]), tile, 4 * y + 1);
                    to.put::<L, P>(c2[y].sub(c1[y]), tile, 4 * y + 2);
                }
                at += c;
                let c3 = if tile + 1 < tiles.end {
                    column::<L, E, Z, T, WHOLE>(&own, at, n)
                } else {
                    column::<L, E, Z, T, WHOLE>(&right, first, n)
                };
                for y in 0..4 {
                    to.put::<L, P>(c1[y].sub(c3[y]), tile, 4 * y + 3);
                }
                (c0, c1) = (c2, c3);
            }
            return to.finish::<L, P, T>(tiles.end);
        }
        // Six columns exceed the registers: a ring of 8 in memory, which no tile copies.
        let mut ring = [[L::splat(0.0); MOST]; 8];
        (ring[0], ring[1]) =
            (column::<L, E, Z, T, WHOLE>(&left, first, n), column::<L, E, Z, T, WHOLE>(&own, first, n));
        let voxels = tiles.len() * T;
        for (i, tile) in tiles.clone().enumerate() {
            for x in i * T + 1..(i + 1) * T {
                ring[(x + 1) % 8] = column::<L, E, Z, T, WHOLE>(&own, first + x * c, n);
            }
            let x = (i + 1) * T;
            let (rows, at) = if x < voxels { (&own, first + x * c) } else { (&right, first) };
            ring[(x + 1) % 8] = column::<L, E, Z, T, WHOLE>(rows, at, n);
            let columns: [&[L; MOST]; MOST] = std::array::from_fn(|x| &ring[(i * T + x) % 8]);
            for y in 0..T + 2 {
                let values = inputs::<L, T>(columns.map(|column| column[y]));
                for x in 0..T + 2 {
                    to.put::<L, P>(values[x], tile, (T + 2) * y + x);
                }
            }
        }
        to.finish::<L, P, T>(tiles.end);
    }
}

/// Row `Z` of A (without its sign) along z: of the two output gradients `sz` values apart.
#[inline(always)]
unsafe fn planes<V: Lanes, E: Element, const Z: usize, const WHOLE: bool>(at: *const E, sz: usize, n: usize) -> V {
    unsafe {
        match Z {
            0 => load::<V, E, WHOLE>(at, n),
            1 => load::<V, E, WHOLE>(at, n).add(load::<V, E, WHOLE>(at.add(sz), n)),
            2 => load::<V, E, WHOLE>(at, n).sub(load::<V, E, WHOLE>(at.add(sz), n)),
            _ => load::<V, E, WHOLE>(at.add(sz), n),
        }
    }
}

/// A dy of one tile row for z index `Z` and the `n` channels from `dy` on, as tiles `tiles` of `to`, whose words are channels.
/// `strides`: values between rows, planes and voxels of dy; of the last `rest` are left in a row of channels.
#[inline(always)]
pub unsafe fn gradient<V: Vector, O: Operand<V>, E: Element, const Z: usize, const T: usize>(
    dy: *const E,
    (n, rest): (usize, usize),
    strides: (usize, usize, usize),
    tiles: Range<usize>,
    to: Place,
) {
    let mut c = 0;
    while c < n {
        let (from, rest, to, tiles) = (dy.wrapping_add(c), rest - c, to.plus(c), tiles.clone());
        unsafe {
            if O::Strip::LANES > V::LANES && n - c >= O::Strip::LANES {
                gradient_row::<O::Strip, O::OfStrip, E, Z, T, true>(from, rest, strides, tiles, to);
                c += O::Strip::LANES;
                continue;
            }
            if rest >= V::LANES {
                gradient_row::<V, O, E, Z, T, true>(from, rest, strides, tiles, to);
            } else {
                gradient_row::<V, O, E, Z, T, false>(from, rest, strides, tiles, to);
            }
            c += V::LANES;
        }
    }
}

/// The same for lanes L.
#[inline(always)]
unsafe fn gradient_row<L: Lanes, P: Put<L>, E: Element, const Z: usize, const T: usize, const WHOLE: bool>(
    mut dy: *const E,
    n: usize,
    (sz, sy, c): (usize, usize, usize),
    tiles: Range<usize>,
    to: Place,
) {
    unsafe {
        for tile in tiles.clone() {
            let mut columns = [[L::splat(0.0); MOST]; MOST]; // [x][y]
            for x in 0..T {
                let mut d = [L::splat(0.0); MOST];
                for y in 0..T {
                    d[y] = planes::<L, E, Z, WHOLE>(dy.add(y * sy), sz, n);
                }
                columns[x] = spread::<L, T>(d);
                dy = dy.add(c);
            }
            for y in 0..T + 2 {
                let values = spread::<L, T>(columns.map(|column| column[y]));
                for x in 0..T + 2 {
                    to.put::<L, P>(values[x], tile, (T + 2) * y + x);
                }
            }
        }
        to.finish::<L, P, T>(tiles.end);
    }
}
