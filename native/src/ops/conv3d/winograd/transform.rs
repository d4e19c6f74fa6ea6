//! The transforms of F(2, 3) along one axis, with the points 0, 1, -1, infinity, and what is built from them.
//!
//! With d four inputs, g three taps and y two outputs, y = A^T [(G g) . (B^T d)]:
//! B^T = 1 0 -1 0 | 0 1 1 0 | 0 -1 1 0 | 0 1 0 -1,  G = 1 0 0 | .5 .5 .5 | .5 -.5 .5 | 0 0 1,  A^T = 1 1 1 0 | 0 1 -1 -1.
//! The gradient of the taps is the transpose: dg = G^T [(A dy) . (B^T d)]. The last row of A, -1, is taken as 1 here
//! and put right by `taps_back`. (Lavin and Gray 2016, section 4.1, in three dimensions.)

use super::tiles::{Parts, Row, TileRow};
use super::vector::{Operand, Vector, load};
use crate::element::Element;

/// The two planes that row `Z` of B^T combines along z: the difference, or for row 1 the sum.
pub const PLANES: [(usize, usize); 4] = [(0, 2), (1, 2), (2, 1), (1, 3)];

/// A of one axis without its sign: two output gradients to four values.
#[inline(always)]
unsafe fn spread<V: Vector>(d: [V; 2]) -> [V; 4] {
    unsafe { [d[0], d[0].add(d[1]), d[0].sub(d[1]), d[1]] }
}

/// A^T: four products to two outputs.
#[inline(always)]
pub unsafe fn outputs<V: Vector>(m: [V; 4]) -> [V; 2] {
    unsafe { [m[0].add(m[1].add(m[2])), m[1].sub(m[2]).sub(m[3])] }
}

/// G: three taps to four values.
#[inline(always)]
pub unsafe fn taps<V: Vector>(g: [V; 3]) -> [V; 4] {
    unsafe {
        let half = V::splat(0.5);
        let (sum, middle) = (g[0].add(g[2]).mul(half), g[1].mul(half));
        [g[0], sum.add(middle), sum.sub(middle), g[2]]
    }
}

/// G^T with the sign that `spread` leaves out: four sums to the gradients of three taps.
#[inline(always)]
pub unsafe fn taps_back<V: Vector>(m: [V; 4]) -> [V; 3] {
    unsafe {
        let half = V::splat(0.5);
        let sum = m[1].add(m[2]).mul(half);
        [m[0].add(sum), m[1].sub(m[2]).mul(half), sum.sub(m[3])]
    }
}

/// One column of a tile's input: row `Z` of B^T along z, then B^T along y. `from` picks the part of each row.
#[inline(always)]
unsafe fn column<V: Vector, E: Element, const Z: usize, const WHOLE: bool>(
    p: &[*const E; 4],
    q: &[*const E; 4],
    at: usize,
    n: usize,
) -> [V; 4] {
    unsafe {
        let mut d = [V::splat(0.0); 4];
        for y in 0..4 {
            let (a, b) = (load::<V, E, WHOLE>(p[y].add(at), n), load::<V, E, WHOLE>(q[y].add(at), n));
            d[y] = if Z == 1 { a.add(b) } else { a.sub(b) };
        }
        [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])]
    }
}

/// Where a transformed operand goes, in 32-bit words: distance of the 16 matrices of one z index, and of its tiles, or
/// where words hold operands of neighbouring tiles, of these groups of tiles.
#[derive(Clone, Copy)]
pub struct Place {
    pub at: *mut f32,
    pub matrix: usize,
    pub tile: usize,
    /// Words hold operands of neighbouring tiles; otherwise of neighbouring channels.
    pub tiles_share: bool,
}

impl Place {
    #[inline(always)]
    unsafe fn put<V: Vector, O: Operand<V>>(&self, value: V, tile: usize, matrix: usize) {
        unsafe {
            let at = self.at.add(matrix * self.matrix);
            if self.tiles_share {
                O::put_half(value, tile % O::PER_WORD, at.add(tile / O::PER_WORD * self.tile));
            } else {
                O::put(value, at.add(tile * self.tile));
            }
        }
    }
}

/// B^T d of one tile row for z index `Z` and the vector of channels that begins with `channel`, as tiles `tiles` of `to`.
#[inline(always)]
pub unsafe fn input<V: Vector, O: Operand<V>, E: Element, const Z: usize>(
    row: &TileRow<E>,
    x: &Parts<*const E>,
    channel: usize,
    tiles: std::ops::Range<usize>,
    to: Place,
) {
    let (part, first) = x.find(channel);
    let (rows, c) = (&row.rows[part], x.c[part]);
    unsafe {
        if c - first >= V::LANES {
            input_row::<V, O, E, Z, true>(rows, (first, c - first), c, tiles, to);
        } else {
            input_row::<V, O, E, Z, false>(rows, (first, c - first), c, tiles, to);
        }
    }
}

/// The same in rows of `c` channels, of which `n` are left from `first` on. Neighbouring tiles share two columns, and a result
/// leaves as soon as its columns are there, so that three columns are alive at most.
#[inline(always)]
unsafe fn input_row<V: Vector, O: Operand<V>, E: Element, const Z: usize, const WHOLE: bool>(
    rows: &[[Row<E>; 4]; 4],
    (first, n): (usize, usize),
    c: usize,
    tiles: std::ops::Range<usize>,
    to: Place,
) {
    unsafe {
        let (p, q) = (&rows[PLANES[Z].0], &rows[PLANES[Z].1]);
        let own = |r: &[Row<E>; 4]| [r[0].own, r[1].own, r[2].own, r[3].own];
        let left = |r: &[Row<E>; 4]| [r[0].left, r[1].left, r[2].left, r[3].left];
        let right = |r: &[Row<E>; 4]| [r[0].right, r[1].right, r[2].right, r[3].right];
        let (p_own, q_own) = (own(p), own(q));
        let mut c0 = column::<V, E, Z, WHOLE>(&left(p), &left(q), first, n);
        let mut c1 = column::<V, E, Z, WHOLE>(&p_own, &q_own, first, n);
        let mut at = first;
        for tile in tiles.clone() {
            at += c;
            let c2 = column::<V, E, Z, WHOLE>(&p_own, &q_own, at, n);
            for y in 0..4 {
                to.put::<V, O>(c0[y].sub(c2[y]), tile, 4 * y);
            }
            for y in 0..4 {
                to.put::<V, O>(c1[y].add(c2[y]), tile, 4 * y + 1);
                to.put::<V, O>(c2[y].sub(c1[y]), tile, 4 * y + 2);
            }
            at += c;
            let c3 = if tile + 1 < tiles.end {
                column::<V, E, Z, WHOLE>(&p_own, &q_own, at, n)
            } else {
                column::<V, E, Z, WHOLE>(&right(p), &right(q), first, n)
            };
            for y in 0..4 {
                to.put::<V, O>(c1[y].sub(c3[y]), tile, 4 * y + 3);
            }
            (c0, c1) = (c2, c3);
        }
    }
}

/// Row `Z` of A (without its sign) along z: of the two output gradients `sz` values apart.
#[inline(always)]
unsafe fn planes<V: Vector, E: Element, const Z: usize, const WHOLE: bool>(at: *const E, sz: usize, n: usize) -> V {
    unsafe {
        match Z {
            0 => load::<V, E, WHOLE>(at, n),
            1 => load::<V, E, WHOLE>(at, n).add(load::<V, E, WHOLE>(at.add(sz), n)),
            2 => load::<V, E, WHOLE>(at, n).sub(load::<V, E, WHOLE>(at.add(sz), n)),
            _ => load::<V, E, WHOLE>(at.add(sz), n),
        }
    }
}

/// A dy of one tile row for z index `Z` and one vector of channels, as tiles `tiles` of `to`. `sy`, `sz`: values between rows and planes of dy.
#[inline(always)]
pub unsafe fn gradient_row<V: Vector, O: Operand<V>, E: Element, const Z: usize, const WHOLE: bool>(
    mut dy: *const E,
    n: usize,
    (sz, sy, c): (usize, usize, usize),
    tiles: std::ops::Range<usize>,
    to: Place,
) {
    unsafe {
        for tile in tiles {
            let at = dy;
            let left = spread([planes::<V, E, Z, WHOLE>(at, sz, n), planes::<V, E, Z, WHOLE>(at.add(sy), sz, n)]);
            let at = at.add(c);
            let right = spread([planes::<V, E, Z, WHOLE>(at, sz, n), planes::<V, E, Z, WHOLE>(at.add(sy), sz, n)]);
            for y in 0..4 {
                let values = spread([left[y], right[y]]);
                for x in 0..4 {
                    to.put::<V, O>(values[x], tile, 4 * y + x);
                }
            }
            dy = dy.add(2 * c);
        }
    }
}
