//! Rows of values turned to columns of 32-bit words, 16 by 16 in registers, rounded to bf16 by instruction. Attention on 1728
//! rows of 12 heads of 72, two Zen 4 cores, backward: 79.5 ms; by way of a block in memory that was zeroed, filled, turned and
//! copied: 83 (an exp of shorter chains was in the first, too).

use crate::element::{Dtype, Element};
use crate::ops::conv3d::isa::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Whether `rows` and `pairs` take values in groups of `G`: with AVX-512 (1), with its rounding to bf16 (2).
pub const fn offers<const G: usize>(level: u32) -> bool {
    cfg!(target_arch = "x86_64") && level >= if G == 2 { 2 } else { 1 }
}

/// The transpose, in place.
pub fn turn(block: &mut [[u32; 16]; 16]) {
    if cfg!(target_arch = "x86_64") && isa() >= Isa::Avx512 { turned::<1>(block) } else { turned::<0>(block) }
}

/// The same where it is known what the processor has (`Factor::pack`).
#[inline(always)]
pub fn turned<const LEVEL: u32>(block: &mut [[u32; 16]; 16]) {
    #[cfg(target_arch = "x86_64")]
    if LEVEL > 0 {
        return unsafe {
            let rows = std::array::from_fn(|i| _mm512_loadu_si512(block[i].as_ptr() as *const __m512i));
            for (row, value) in block.iter_mut().zip(transposed(rows)) {
                _mm512_storeu_si512(row.as_mut_ptr() as *mut __m512i, value);
            }
        };
    }
    let from = *block;
    for (i, row) in block.iter_mut().enumerate() {
        row.iter_mut().zip(&from).for_each(|(to, from)| *to = from[i]);
    }
}

/// Word i of `count` rows (at most 16), `row` values apart in `values`, to `to` from `i * apart` on, for 16 words.
///
/// # Safety
/// The processor is one for which `offers` holds.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn rows<E: Element, const G: usize>(values: &[E], row: usize, count: usize, to: &mut [u32], apart: usize) {
    assert!((count - 1) * row + 16 * G <= values.len() && 15 * apart + count <= to.len() && count <= 16);
    unsafe {
        let mut words = [_mm512_setzero_si512(); 16];
        for (i, words) in words.iter_mut().enumerate().take(count) {
            let at = values.as_ptr().add(i * row);
            *words = match (E::DTYPE, G) {
                (Dtype::F32, 2) => {
                    let at = at as *const f32;
                    rounded(_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16)))
                }
                (Dtype::Bf16, 1) => {
                    _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(at as *const __m256i)))
                }
                _ => _mm512_loadu_si512(at as *const __m512i),
            };
        }
        for (i, words) in transposed(words).into_iter().enumerate() {
            let to = to.as_mut_ptr().add(i * apart) as *mut i32;
            // Where columns follow each other, the next one overwrites what a whole store leaves beyond its own.
            if count == 16 || apart == count && i < 15 && apart >= 8 {
                _mm512_storeu_epi32(to, words);
            } else {
                _mm512_mask_storeu_epi32(to, u16::MAX >> (16 - count), words);
            }
        }
    }
}

/// Pairs of the values of two rows.
///
/// # Safety
/// The processor is one for which `offers` holds, with G = 2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn pairs<E: Element, const R: usize>(low: &[E; R], high: &[E; R], to: &mut [u32; R]) {
    const MEETING: [u16; 32] = {
        let mut to = [0; 32];
        let mut i = 0;
        while i < 32 {
            to[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        to
    };
    for i in (0..R).step_by(16) {
        let live = u16::MAX >> (16 - (R - i).min(16));
        unsafe {
            let (low, high) = (low.as_ptr().add(i), high.as_ptr().add(i));
            let halves = if E::DTYPE == Dtype::F32 {
                let [low, high] = [low, high].map(|half| _mm512_maskz_loadu_ps(live, half as *const f32));
                rounded(low, high)
            } else {
                let [low, high] = [low, high].map(|half| _mm512_maskz_loadu_epi16(live as u32, half as *const i16));
                _mm512_inserti64x4::<1>(low, _mm512_castsi512_si256(high))
            };
            let order = _mm512_loadu_si512(MEETING.as_ptr() as *const __m512i);
            let words = _mm512_permutexvar_epi16(order, halves);
            _mm512_mask_storeu_epi32(to.as_mut_ptr().add(i) as *mut i32, live, words);
        }
    }
}

/// Values and 16 more as bf16.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn rounded(low: __m512, high: __m512) -> __m512i {
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = rows;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Quarter L of q[4i + j] holds column 4L + j of rows 4i..4i + 4.
    let mut q = t;
    for i in 0..8 {
        let from = 4 * (i / 2) + i % 2;
        q[2 * i] = _mm512_unpacklo_epi64(t[from], t[from + 2]);
        q[2 * i + 1] = _mm512_unpackhi_epi64(t[from], t[from + 2]);
    }
    let mut out = q;
    for j in 0..4 {
        let even = |a, b| _mm512_shuffle_i32x4::<0x88>(a, b);
        let odd = |a, b| _mm512_shuffle_i32x4::<0xdd>(a, b);
        let (a, b) = (even(q[j], q[4 + j]), even(q[8 + j], q[12 + j]));
        let (c, d) = (odd(q[j], q[4 + j]), odd(q[8 + j], q[12 + j]));
        (out[j], out[4 + j], out[8 + j], out[12 + j]) = (even(a, b), even(c, d), odd(a, b), odd(c, d));
    }
    out
}

#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn rows<E: Element, const G: usize>(_: &[E], _: usize, _: usize, _: &mut [u32], _: usize) {
    unreachable!("`offers` says no");
}

#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn pairs<E: Element, const R: usize>(_: &[E; R], _: &[E; R], _: &mut [u32; R]) {
    unreachable!("`offers` says no");
}
