//! Factors of a product as panels that the inner loop reads in order: `[panel][lane][R]`, a lane being what one
//! multiplication takes of the summed index: an f32 value, or a pair of bf16 (group G = 1 or 2). Missing values are zeros.

use super::turn::{self, turned};
use crate::element::{Dtype, Element, convert};
use crate::ops::conv3d::isa::{Isa, isa};
use half::bf16;
use std::ops::Range;

/// Rows of the summed index between what is packed and what is asked for.
const AHEAD: usize = 16;

/// Values (i, k) at `i * row + k * column`, one of the two strides being 1.
#[derive(Clone, Copy)]
pub struct Factor<'a, E> {
    values: &'a [E],
    row: usize,
    column: usize,
}

impl<'a, E: Element> Factor<'a, E> {
    /// `[i][k]`, `width` values of k.
    pub fn rows(values: &'a [E], width: usize) -> Self {
        Factor { values, row: width, column: 1 }
    }
    /// `[k][i]`, `width` values of i.
    pub fn columns(values: &'a [E], width: usize) -> Self {
        Factor { values, row: 1, column: width }
    }
    /// Asks for the values of `rows` and `depth` that are the `share`-th of `shares` parts, for the second cache.
    pub fn ask(&self, rows: &Range<usize>, depth: &Range<usize>, share: usize, shares: usize) {
        let (lines, line, apart) = if self.column == 1 { (rows, depth, self.row) } else { (depth, rows, self.column) };
        let part = |i: usize| lines.start + lines.len() * i / shares;
        for first in (part(share)..part(share + 1)).map(|i| i * apart) {
            ask(self.values.as_ptr(), first + line.start..first + line.end);
        }
    }
    /// Panels of R rows of `rows`, of the summed indices `depth`.
    pub fn pack<const G: usize, const R: usize>(&self, rows: Range<usize>, depth: Range<usize>, out: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        match isa() {
            Isa::Portable => {}
            Isa::Avx2 => return unsafe { avx2::<E, G, R>(self, rows, depth, out) },
            Isa::Avx512 => return unsafe { avx512::<E, G, R>(self, rows, depth, out) },
            _ => return unsafe { avx512bf16::<E, G, R>(self, rows, depth, out) },
        }
        plain::<E, G, R, 0>(self, rows, depth, out)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn avx512bf16<E: Element, const G: usize, const R: usize>(
    f: &Factor<E>,
    rows: Range<usize>,
    depth: Range<usize>,
    out: &mut [u32],
) {
    plain::<E, G, R, 2>(f, rows, depth, out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn avx512<E: Element, const G: usize, const R: usize>(
    f: &Factor<E>,
    rows: Range<usize>,
    depth: Range<usize>,
    out: &mut [u32],
) {
    plain::<E, G, R, 1>(f, rows, depth, out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<E: Element, const G: usize, const R: usize>(
    f: &Factor<E>,
    rows: Range<usize>,
    depth: Range<usize>,
    out: &mut [u32],
) {
    plain::<E, G, R, 0>(f, rows, depth, out)
}

/// `LEVEL`: 0, or what of AVX-512 there is, 1 or, with its rounding to bf16, 2.
#[inline(always)]
fn plain<E: Element, const G: usize, const R: usize, const LEVEL: u32>(
    f: &Factor<E>,
    rows: Range<usize>,
    depth: Range<usize>,
    out: &mut [u32],
) {
    let lanes = depth.len().div_ceil(G);
    let by_words = const { turn::offers::<G>(LEVEL) };
    if f.column == 1 {
        for (panel, out) in out.chunks_exact_mut(lanes * R).enumerate() {
            let first = rows.start + panel * R;
            for strip in (0..R).step_by(16) {
                let width = const { if R < 16 { R } else { 16 } };
                let live = rows.end.saturating_sub(first + strip).min(width);
                for q in (0..lanes).step_by(16) {
                    let from = (first + strip) * f.row + depth.start + q * G;
                    if by_words && live == width && depth.len() >= (q + 16) * G {
                        let values = &f.values[from..from + (width - 1) * f.row + 16 * G];
                        unsafe { turn::rows::<E, G>(values, f.row, width, &mut out[q * R + strip..], R) };
                        continue;
                    }
                    let mut block = [[0u32; 16]; 16];
                    for (i, to) in block.iter_mut().enumerate().take(live) {
                        let row = (first + strip + i) * f.row;
                        group::<E, G>(&f.values[row + depth.start + q * G..row + depth.end], to);
                    }
                    turned::<LEVEL>(&mut block);
                    for (to, from) in out[q * R..].chunks_exact_mut(R).zip(&block) {
                        to[strip..strip + width].copy_from_slice(&from[..width]);
                    }
                }
            }
        }
        return;
    }
    for q in 0..lanes {
        let k = depth.start + q * G;
        ahead(f.values, (k + AHEAD) * f.column + rows.start, rows.len());
        if G == 2 {
            ahead(f.values, (k + 1 + AHEAD) * f.column + rows.start, rows.len());
        }
        let low = &f.values[k * f.column..][rows.clone()];
        let high = if G == 2 && k + 1 < depth.end { &f.values[(k + 1) * f.column..][rows.clone()] } else { &[] };
        for (panel, out) in out.chunks_exact_mut(lanes * R).enumerate() {
            let to: &mut [u32; R] = (&mut out[q * R..][..R]).try_into().expect("R values");
            if (panel + 1) * R <= low.len() && (G == 1 || !high.is_empty()) {
                let low: &[E; R] = low[panel * R..][..R].try_into().expect("R values");
                if G == 1 {
                    to.iter_mut().zip(low).for_each(|(to, v)| *to = v.to_f32().to_bits());
                    continue;
                }
                let high: &[E; R] = high[panel * R..][..R].try_into().expect("R values");
                if by_words {
                    unsafe { turn::pairs(low, high, to) };
                } else {
                    to.iter_mut().zip(low.iter().zip(high)).for_each(|(to, (l, h))| *to = pair(*l, *h));
                }
                continue;
            }
            for (i, to) in to.iter_mut().enumerate() {
                let at = |from: &[E]| from.get(panel * R + i).copied().unwrap_or_default();
                *to = if G == 1 { at(low).to_f32().to_bits() } else { pair(at(low), at(high)) };
            }
        }
    }
}

/// Asks for values that come soon, for the second cache.
#[inline(always)]
pub fn ask<E>(values: *const E, range: Range<usize>) {
    #[cfg(target_arch = "x86_64")]
    for at in range.step_by(64 / size_of::<E>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        unsafe { _mm_prefetch::<_MM_HINT_T1>(values.wrapping_add(at) as *const i8) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, range);
}

/// Asks for `count` values of a row that comes soon: rows far apart are not foreseen by the processor.
#[inline(always)]
fn ahead<E>(values: &[E], from: usize, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for i in (from..from + count).step_by(64 / size_of::<E>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(i) as *const i8) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, from, count);
}

#[inline(always)]
fn pair<E: Element>(low: E, high: E) -> u32 {
    let bits = |v: E| match E::DTYPE {
        Dtype::Bf16 => v.to_f32().to_bits() >> 16,
        Dtype::F32 => <bf16 as Element>::from_f32(v.to_f32()).to_bits() as u32,
    };
    bits(low) | bits(high) << 16
}

/// Up to 16 lanes of neighbouring values.
#[inline(always)]
fn group<E: Element, const G: usize>(from: &[E], to: &mut [u32; 16]) {
    if from.len() >= 16 * G {
        if G == 1 {
            to.iter_mut().zip(from).for_each(|(to, v)| *to = v.to_f32().to_bits());
        } else if E::DTYPE == Dtype::Bf16 {
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr() as *const u8, to.as_mut_ptr() as *mut u8, 64) };
        } else {
            let mut halves = [bf16::ZERO; 32];
            convert(&from[..32], &mut halves);
            *to = unsafe { std::mem::transmute::<[bf16; 32], [u32; 16]>(halves) };
        }
        return;
    }
    for (to, from) in to.iter_mut().zip(from.chunks(G)) {
        *to = if G == 1 { from[0].to_f32().to_bits() } else { pair(from[0], from.get(1).copied().unwrap_or_default()) };
    }
}
