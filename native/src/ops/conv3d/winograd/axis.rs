//! Minimal filtering F(T, 3) along one axis, T = 2 or 4: T outputs of three taps from T + 2 inputs and as many products. Arrays
//! have room for T = 4; what lies behind is not read, and zero in results.
//!
//! With d the inputs, g the taps and y the outputs, y = A^T [(G g) . (B^T d)]. A point p, the others being q, has the row
//! 1, p, p^2 .. of A, the row (1, p, p^2) / product of (p - q) of G and the coefficients of the product of (x - q) in B^T;
//! infinity has the last output, the last tap and the product over all points. The gradient of the taps is the transpose:
//! dg = G^T [(A dy) . (B^T d)]. (Lavin and Gray 2016, section 4.1; Cook and Toom.)
//!
//! F(2, 3) has the points 0, 1, -1: B^T = 1 0 -1 0 | 0 1 1 0 | 0 -1 1 0 | 0 1 0 -1, G = 1 0 0 | .5 .5 .5 | .5 -.5 .5 | 0 0 1,
//! A^T = 1 1 1 0 | 0 1 -1 -1. The last row of A, -1, is taken as 1 here and put right by `taps_back`.
//! F(4, 3) has the points 0, 5/8, -5/8, 3/2, -3/2, whose B^T and A are exact in f32: of 42 pairs tried the one with the
//! smallest error; the usual 1, 2 have 2.2 times as much.

use super::super::vector::Lanes;

/// Inputs and products of F(4, 3).
pub const MOST: usize = 6;

const A: f32 = 0.625;
const B: f32 = 1.5;
const AA: f32 = A * A;
const BB: f32 = B * B;
/// Divisors of G for 0, for A and -A, for B and -B.
const N0: f32 = AA * BB;
const NA: f32 = 2.0 * AA * (AA - BB);
const NB: f32 = 2.0 * BB * (BB - AA);

/// a * factor + b
#[inline(always)]
unsafe fn fma<V: Lanes>(a: V, factor: f32, b: V) -> V {
    unsafe { a.mul_add(V::splat(factor), b) }
}

/// B^T.
#[inline(always)]
pub unsafe fn inputs<V: Lanes, const T: usize>(d: [V; MOST]) -> [V; MOST] {
    unsafe {
        if T == 2 {
            let zero = V::splat(0.0);
            return [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3]), zero, zero];
        }
        let (even_a, odd_a) = (fma(d[2], -BB, d[4]), fma(d[1], -BB, d[3]));
        let (even_b, odd_b) = (fma(d[2], -AA, d[4]), fma(d[1], -AA, d[3]));
        [
            fma(d[0], N0, fma(d[2], -AA - BB, d[4])),
            fma(odd_a, A, even_a),
            fma(odd_a, -A, even_a),
            fma(odd_b, B, even_b),
            fma(odd_b, -B, even_b),
            fma(d[1], N0, fma(d[3], -AA - BB, d[5])),
        ]
    }
}

/// A (without the sign of its last row where T = 2): output gradients to values.
#[inline(always)]
pub unsafe fn spread<V: Lanes, const T: usize>(d: [V; MOST]) -> [V; MOST] {
    unsafe {
        if T == 2 {
            let zero = V::splat(0.0);
            return [d[0], d[0].add(d[1]), d[0].sub(d[1]), d[1], zero, zero];
        }
        let (even_a, odd_a) = (fma(d[2], AA, d[0]), fma(d[3], AA, d[1]));
        let (even_b, odd_b) = (fma(d[2], BB, d[0]), fma(d[3], BB, d[1]));
        [d[0], fma(odd_a, A, even_a), fma(odd_a, -A, even_a), fma(odd_b, B, even_b), fma(odd_b, -B, even_b), d[3]]
    }
}

/// A^T: products to outputs.
#[inline(always)]
pub unsafe fn outputs<V: Lanes, const T: usize>(m: [V; MOST]) -> [V; 4] {
    unsafe {
        let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        if T == 2 {
            let zero = V::splat(0.0);
            return [m[0].add(even_a), odd_a.sub(m[3]), zero, zero];
        }
        let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(even_a.add(even_b)),
            fma(odd_b, B, odd_a.mul(V::splat(A))),
            fma(even_b, BB, even_a.mul(V::splat(AA))),
            fma(odd_b, B * BB, fma(odd_a, A * AA, m[5])),
        ]
    }
}

/// G: three taps to values.
#[inline(always)]
pub unsafe fn taps<V: Lanes, const T: usize>(g: [V; 3]) -> [V; MOST] {
    unsafe {
        let scaled = |v: V, factor: f32| v.mul(V::splat(factor));
        if T == 2 {
            let (sum, middle, zero) = (scaled(g[0].add(g[2]), 0.5), scaled(g[1], 0.5), V::splat(0.0));
            return [g[0], sum.add(middle), sum.sub(middle), g[2], zero, zero];
        }
        let (even_a, even_b) = (scaled(fma(g[2], AA, g[0]), 1.0 / NA), scaled(fma(g[2], BB, g[0]), 1.0 / NB));
        [
            scaled(g[0], 1.0 / N0),
            fma(g[1], A / NA, even_a),
            fma(g[1], -A / NA, even_a),
            fma(g[1], B / NB, even_b),
            fma(g[1], -B / NB, even_b),
            g[2],
        ]
    }
}

/// G^T (with the sign that `spread` leaves out): sums to the gradients of three taps.
#[inline(always)]
pub unsafe fn taps_back<V: Lanes, const T: usize>(m: [V; MOST]) -> [V; 3] {
    unsafe {
        let scaled = |v: V, factor: f32| v.mul(V::splat(factor));
        let (even_a, odd_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        if T == 2 {
            let sum = scaled(even_a, 0.5);
            return [m[0].add(sum), scaled(odd_a, 0.5), sum.sub(m[3])];
        }
        let (even_b, odd_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            fma(m[0], 1.0 / N0, fma(even_a, 1.0 / NA, scaled(even_b, 1.0 / NB))),
            fma(odd_a, A / NA, scaled(odd_b, B / NB)),
            fma(even_a, AA / NA, fma(even_b, BB / NB, m[5])),
        ]
    }
}
