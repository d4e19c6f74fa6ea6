//! The two inner loops of the direct convolutions on the vectors of `vector`: register tiles of 8 voxels (or input channels) by
//! 32 output channels with AVX-512, of 4 by 16 with shorter vectors. A word is one f32, or a pair of bf16: neighbouring input
//! channels in `tile`, neighbouring voxels in `outer`.
//!
//! Share of the peak of one Zen 5 core (468 GFLOP/s in bf16, 234 in f32, 117 with AVX2), whole 3x3x3 convolutions with gathering
//! and packing, processor time, nothing else running, 2026-11-22: forward, input gradient, weight gradient.
//!
//! | channels, side, batch | bf16 pairs | AVX-512 f32 | AVX2 |
//! |---|---|---|---|
//! | 16, 64^3, 1 | 54, 54, 44 % | 67, 67, 71 % | 84, 84, 87 % |
//! | 32, 48^3, 1 | 88, 88, 81 % | 93, 91, 95 % | 89, 89, 86 % |
//! | 64, 24^3, 1 | 90, 90, 89 % | 92, 92, 96 % | 89, 90, 88 % |
//! | 128, 12^3, 1 | 78, 76, 85 % | 84, 85, 89 % | 85, 86, 80 % |
//! | 256, 6^3, 1 | 35, 34, 53 % | 48, 56, 65 % | 59, 64, 59 % |
//! | 320, 4^3, 2 | 22, 23, 37 % | 31, 40, 41 % | 45, 51, 55 % |
//!
//! The lower rows go to `few` or `winograd`. Plain Rust in loops over arrays, which the compiler made AVX2 of before, had 62, 62
//! and 16 % at 48^3. On a processor with neither, 32, 33 and 23 GFLOP/s; the loops over arrays had 39, 39 and 15.

// Small matrices read best by index.
#![allow(clippy::needless_range_loop)]

use super::isa::isa;
use super::kernels::{M, N, Operand, Tile, Weights};
use super::vector::{self, Kernel, Operands, Path, Vector};
use std::marker::PhantomData;

/// As this processor multiplies operands of `T`.
fn path<T: Operand>() -> Path {
    Path { isa: isa(), operands: if T::GROUP == 2 { Operands::Bf16 } else { Operands::F32 }, wide: false }
}

/// tile[i][j] = (first ? start[j] : tile[i][j]) + sum over taps t, channels k of a[from[i] + t + k] * w[t][k][j].
///
/// # Safety
/// `a` holds `c` values from every `from + tap` on; `w` is the part of a `Packed` that begins with these taps.
#[inline]
pub unsafe fn tile<T: Operand>(
    a: *const T,
    from: &[u32; M],
    taps: &[u32],
    w: Weights<T>,
    first: Option<&[f32; N]>,
    tile: &mut Tile,
) {
    vector::dispatch(&Voxels { a, from, taps, w, first, tile: tile.as_mut_ptr() }, path::<T>(), 0);
}

struct Voxels<'a, T> {
    a: *const T,
    from: &'a [u32; M],
    taps: &'a [u32],
    w: Weights<T>,
    first: Option<&'a [f32; N]>,
    tile: *mut f32,
}
unsafe impl<T> Sync for Voxels<'_, T> {}

impl<T: Operand> Kernel for Voxels<'_, T> {
    const PAIRS: bool = T::GROUP == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: vector::Operand<V>>(&self, _: usize) {
        unsafe {
            match (V::LANES, V::ROWS, self.w.width) {
                (16, 8, 16) => self.block::<V, O, 8, 1>(0, 0),
                (16, 8, _) => self.block::<V, O, 8, 2>(0, 0),
                _ => {
                    for i in (0..M).step_by(4) {
                        for j in (0..self.w.width).step_by(2 * V::LANES) {
                            self.block::<V, O, 4, 2>(i, j);
                        }
                    }
                }
            }
        }
    }
}

impl<T: Operand> Voxels<'_, T> {
    /// Rows from `i` on by columns from `j` on.
    #[inline(always)]
    unsafe fn block<V: Vector, O: vector::Operand<V>, const R: usize, const Q: usize>(&self, i: usize, j: usize) {
        unsafe {
            let mut sums = [[V::splat(0.0); Q]; R];
            for r in 0..R {
                let start = self.first.map_or(self.tile.add((i + r) * N) as *const f32, |start| start.as_ptr());
                for q in 0..Q {
                    sums[r][q] = V::load(start.add(j + q * V::LANES));
                }
            }
            let mut weights = (self.w.at as *const f32).add(j);
            for &tap in self.taps {
                let rows: [*const f32; R] =
                    std::array::from_fn(|r| self.a.wrapping_add((self.from[i + r] + tap) as usize) as *const f32);
                for k in 0..self.w.c / T::GROUP {
                    let mut columns = [V::splat(0.0); Q];
                    for q in 0..Q {
                        columns[q] = V::load(weights.add(q * V::LANES));
                    }
                    weights = weights.add(self.w.width);
                    for r in 0..R {
                        let word = V::splat(rows[r].add(k).read_unaligned());
                        for q in 0..Q {
                            sums[r][q] = O::multiply(word, columns[q], sums[r][q]);
                        }
                    }
                }
            }
            for r in 0..R {
                for q in 0..Q {
                    sums[r][q].store(self.tile.add((i + r) * N + j + q * V::LANES));
                }
            }
        }
    }
}

/// out[i][j] += sum over v of a[bases[v] + places[i]] * rows[v][j] for at most 8 rows i and `width` columns j.
///
/// # Safety
/// `a` reaches `bases[v] + places[i]`, `rows` `bases.len() * width`, `out` holds `places.len() * width` values.
pub unsafe fn outer<T: Operand>(
    a: *const T::Lane,
    bases: &[u32],
    places: &[u32],
    rows: *const T::Lane,
    width: usize,
    out: *mut f32,
) {
    let work = Outer::<T> { a: a as *const f32, bases, places, rows: rows as *const f32, width, out, of: PhantomData };
    vector::dispatch(&work, path::<T>(), 0);
}

struct Outer<'a, T> {
    a: *const f32,
    bases: &'a [u32],
    places: &'a [u32],
    rows: *const f32,
    width: usize,
    out: *mut f32,
    of: PhantomData<T>,
}
unsafe impl<T> Sync for Outer<'_, T> {}

impl<T: Operand> Kernel for Outer<'_, T> {
    const PAIRS: bool = T::GROUP == 2;
    #[inline(always)]
    unsafe fn run<V: Vector, O: vector::Operand<V>>(&self, _: usize) {
        for j in (0..self.width).step_by(2 * V::LANES) {
            let narrow = self.width - j <= V::LANES;
            unsafe {
                match (self.places.len(), V::ROWS, narrow) {
                    (8, 8, false) => self.strip::<V, O, 8, 2, 1>(0, j),
                    (8, _, true) => self.strip::<V, O, 8, 1, 1>(0, j),
                    (8, _, false) => {
                        self.strip::<V, O, 4, 2, 1>(0, j);
                        self.strip::<V, O, 4, 2, 1>(4, j);
                    }
                    (n, ..) => {
                        for i in 0..n {
                            self.strip::<V, O, 1, 2, 4>(i, j);
                        }
                    }
                }
            }
        }
    }
}

impl<T: Operand> Outer<'_, T> {
    /// Rows from `i` on by columns from `j` on.
    #[inline(always)]
    unsafe fn strip<V: Vector, O: vector::Operand<V>, const R: usize, const Q: usize, const U: usize>(
        &self,
        i: usize,
        j: usize,
    ) {
        let left = self.width - j;
        unsafe {
            if left >= Q * V::LANES {
                self.sum::<V, O, R, Q, U, true>(i, j, left);
            } else {
                self.sum::<V, O, R, Q, U, false>(i, j, left);
            }
        }
    }

    /// The same of columns of which `left` are left, all or not. `U` voxels add to sums of their own: one row alone would wait for each
    /// multiplication.
    #[inline(always)]
    unsafe fn sum<V, O, const R: usize, const Q: usize, const U: usize, const WHOLE: bool>(
        &self,
        i: usize,
        j: usize,
        left: usize,
    ) where
        V: Vector,
        O: vector::Operand<V>,
    {
        unsafe {
            let mut sums = [[[V::splat(0.0); Q]; R]; U];
            let a: [*const f32; R] = std::array::from_fn(|r| self.a.wrapping_add(self.places[i + r] as usize));
            let count = self.bases.len();
            let whole = count / U * U;
            for v in (0..whole).step_by(U) {
                for u in 0..U {
                    self.add::<V, O, R, Q, WHOLE>(&mut sums[u], &a, v + u, j, left);
                }
            }
            for v in whole..count {
                self.add::<V, O, R, Q, WHOLE>(&mut sums[0], &a, v, j, left);
            }
            for r in 0..R {
                for q in 0..Q {
                    let mut sum = sums[0][r][q];
                    for u in 1..U {
                        sum = sum.add(sums[u][r][q]);
                    }
                    let at = self.out.wrapping_add((i + r) * self.width + j + q * V::LANES);
                    if WHOLE {
                        V::load(at).add(sum).store(at);
                    } else {
                        let n = left.saturating_sub(q * V::LANES).min(V::LANES);
                        V::load_first(at, n).add(sum).store_first(at, n);
                    }
                }
            }
        }
    }

    /// Adds voxel `v`.
    #[inline(always)]
    unsafe fn add<V: Vector, O: vector::Operand<V>, const R: usize, const Q: usize, const WHOLE: bool>(
        &self,
        sums: &mut [[V; Q]; R],
        a: &[*const f32; R],
        v: usize,
        j: usize,
        left: usize,
    ) {
        unsafe {
            let (row, base) = (self.rows.wrapping_add(v * self.width + j), self.bases[v] as usize);
            let mut columns = [V::splat(0.0); Q];
            for q in 0..Q {
                let at = row.wrapping_add(q * V::LANES);
                columns[q] = match WHOLE {
                    true => V::load(at),
                    false => V::load_first(at, left.saturating_sub(q * V::LANES).min(V::LANES)),
                };
            }
            for r in 0..R {
                let word = V::splat(*a[r].add(base));
                for q in 0..Q {
                    sums[r][q] = O::multiply(word, columns[q], sums[r][q]);
                }
            }
        }
    }
}
