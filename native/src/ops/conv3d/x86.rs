//! The vectors of AVX-512 and of AVX2, pairs of bf16, and the entries that are compiled for them.

use super::vector::{Kernel, Lanes, Operand, Put, Single, Vector};
use half::bf16;
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f")]
pub unsafe fn avx512<K: Kernel>(kernel: &K, index: usize) {
    unsafe { kernel.run::<__m512, Single>(index) }
}
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn avx512_bf16<K: Kernel>(kernel: &K, index: usize) {
    unsafe { kernel.run::<__m512, Pair>(index) }
}
#[target_feature(enable = "avx2,fma")]
pub unsafe fn avx2<K: Kernel>(kernel: &K, index: usize) {
    unsafe { kernel.run::<__m256, Single>(index) }
}

/// Pairs of bf16 operands.
pub struct Pair;

#[inline(always)]
unsafe fn rounded(value: __m512) -> __m256i {
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value)) }
}

/// Where the words of a vector that holds even channels, then odd ones, find channels in turn.
const IN_TURN: [u16; 32] = {
    let mut at = [0u16; 32];
    let mut i = 0;
    while i < 32 {
        at[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    at
};
/// The same for channels of two such vectors side by side: the first 16 channels, and the others.
const BESIDE: [[u16; 32]; 2] = {
    let mut at = [[0u16; 32]; 2];
    let mut i = 0;
    while i < 64 {
        at[i / 32][i % 32] = IN_TURN[i / 2] + (i % 2 * 32) as u16;
        i += 1;
    }
    at
};

/// `low` and `high`, rounded.
#[inline(always)]
unsafe fn joined(low: __m512, high: __m512) -> __m512i {
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

#[inline(always)]
unsafe fn indices(of: &[u16; 32]) -> __m512i {
    unsafe { _mm512_loadu_si512(of.as_ptr() as *const __m512i) }
}

impl Operand<__m512> for Pair {
    type Strip = Both;
    type OfStrip = Pair;
    #[inline(always)]
    unsafe fn put_words([low, high]: [__m512; 2], to: *mut f32) {
        unsafe { Pair::put(Both { even: low, odd: high }, to) }
    }
    /// Values too small for a normal f32 become zero.
    #[inline(always)]
    unsafe fn round(value: __m512, to: *mut bf16) {
        unsafe { _mm256_storeu_si256(to as *mut __m256i, rounded(value)) }
    }
    #[inline(always)]
    unsafe fn multiply(word: __m512, columns: __m512, sum: __m512) -> __m512 {
        unsafe {
            let pairs = |v: __m512| std::mem::transmute::<__m512, __m512bh>(v);
            _mm512_dpbf16_ps(sum, pairs(word), pairs(columns))
        }
    }
}

impl Put<__m512> for Pair {
    const PER_WORD: usize = 2;
    #[inline(always)]
    unsafe fn put(value: __m512, to: *mut f32) {
        unsafe { _mm256_storeu_si256(to as *mut __m256i, rounded(value)) }
    }
    #[inline(always)]
    unsafe fn put_half(value: __m512, half: usize, to: *mut f32) {
        unsafe {
            let mut words = _mm512_cvtepu16_epi32(rounded(value));
            if half == 1 {
                words = _mm512_or_si512(_mm512_slli_epi32::<16>(words), _mm512_loadu_si512(to as *const __m512i));
            }
            _mm512_storeu_si512(to as *mut __m512i, words);
        }
    }
}

/// 32 channels: a line of bf16 splits into even and odd ones with fewer instructions than two halves widen with.
#[derive(Clone, Copy)]
pub struct Both {
    even: __m512,
    odd: __m512,
}

impl Put<Both> for Pair {
    const PER_WORD: usize = 2;
    #[inline(always)]
    unsafe fn put(value: Both, to: *mut f32) {
        unsafe {
            let words = _mm512_permutexvar_epi16(indices(&IN_TURN), joined(value.even, value.odd));
            _mm512_storeu_si512(to as *mut __m512i, words);
        }
    }
    /// Until half 1 comes, half 0 waits as it is.
    #[inline(always)]
    unsafe fn put_half(value: Both, half: usize, to: *mut f32) {
        unsafe {
            let (mine, to) = (joined(value.even, value.odd), to as *mut __m512i);
            if half == 0 {
                return _mm512_storeu_si512(to, mine);
            }
            let first = _mm512_loadu_si512(to);
            _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, indices(&BESIDE[0]), mine));
            _mm512_storeu_si512(to.add(1), _mm512_permutex2var_epi16(first, indices(&BESIDE[1]), mine));
        }
    }
}

impl Lanes for Both {
    const LANES: usize = 32;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Both { even: _mm512_set1_ps(value), odd: _mm512_set1_ps(value) } }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe {
            let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
            let take = |index| _mm512_permutex2var_ps(low, index, high);
            Both { even: take(even), odd: take(odd) }
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        let mut values = [0f32; 32];
        unsafe {
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), n);
            Self::load(values.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        unsafe {
            let bits = _mm512_loadu_si512(from as *const __m512i);
            let odd = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000u32 as i32));
            Both { even: _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)), odd: _mm512_castsi512_ps(odd) }
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Both { even: self.even.add(other.even), odd: self.odd.add(other.odd) } }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Both { even: self.even.sub(other.even), odd: self.odd.sub(other.odd) } }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Both { even: self.even.mul(other.even), odd: self.odd.mul(other.odd) } }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe {
            let even = self.even.mul_add(factor.even, term.even);
            Both { even, odd: self.odd.mul_add(factor.odd, term.odd) }
        }
    }
}

/// All methods but the masked ones are one intrinsic each.
macro_rules! intrinsics {
    ($vector:ty, $lanes:literal, $rows:literal, $set1:ident, $load:ident, $store:ident, $add:ident, $sub:ident,
     $mul:ident, $fma:ident, $load_first:expr, $store_first:expr, $load_bf16:expr, $store_bf16:expr
     $(, $transposed:ident)?) => {
        impl Lanes for $vector {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                unsafe { $set1(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn load_first(from: *const f32, n: usize) -> Self {
                unsafe { $load_first(from, n) }
            }
            #[inline(always)]
            unsafe fn load_bf16(from: *const bf16) -> Self {
                unsafe { $load_bf16(from) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
                unsafe { $fma(self, factor, term) }
            }
        }

        impl Vector for $vector {
            const ROWS: usize = $rows;
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn store_first(self, to: *mut f32, n: usize) {
                unsafe { $store_first(to, n, self) }
            }
            #[inline(always)]
            unsafe fn store_bf16(self, to: *mut bf16) {
                unsafe { $store_bf16(to, self) }
            }
            $(#[inline(always)]
            unsafe fn transposed(rows: [Self; 16]) -> [Self; 16] {
                unsafe { $transposed(rows) }
            })?
        }
    };
}

/// Mask of the first `n` of 16 lanes.
#[inline(always)]
fn first16(n: usize) -> u16 {
    (0xffffu32 >> (16 - n)) as u16
}
#[inline(always)]
unsafe fn load16(from: *const f32, n: usize) -> __m512 {
    unsafe { _mm512_maskz_loadu_ps(first16(n), from) }
}
#[inline(always)]
unsafe fn store16(to: *mut f32, n: usize, value: __m512) {
    unsafe { _mm512_mask_storeu_ps(to, first16(n), value) }
}
/// Mask of the first `n` of 8 lanes.
#[inline(always)]
unsafe fn first8(n: usize) -> __m256i {
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}
#[inline(always)]
unsafe fn load8(from: *const f32, n: usize) -> __m256 {
    unsafe { _mm256_maskload_ps(from, first8(n)) }
}
#[inline(always)]
unsafe fn store8(to: *mut f32, n: usize, value: __m256) {
    unsafe { _mm256_maskstore_ps(to, first8(n), value) }
}

#[inline(always)]
unsafe fn transposed16(rows: [__m512; 16]) -> [__m512; 16] {
    unsafe {
        let mut a = rows; // pairs of rows, then fours
        for i in (0..16).step_by(2) {
            (a[i], a[i + 1]) = (_mm512_unpacklo_ps(rows[i], rows[i + 1]), _mm512_unpackhi_ps(rows[i], rows[i + 1]));
        }
        let pd = |v: __m512| _mm512_castps_pd(v);
        let ps = |v: __m512d| _mm512_castpd_ps(v);
        let mut b = a;
        for i in (0..16).step_by(4) {
            b[i] = ps(_mm512_unpacklo_pd(pd(a[i]), pd(a[i + 2])));
            b[i + 1] = ps(_mm512_unpackhi_pd(pd(a[i]), pd(a[i + 2])));
            b[i + 2] = ps(_mm512_unpacklo_pd(pd(a[i + 1]), pd(a[i + 3])));
            b[i + 3] = ps(_mm512_unpackhi_pd(pd(a[i + 1]), pd(a[i + 3])));
        }
        // Vector 4 k + j holds columns j, 4 + j, 8 + j, 12 + j of rows 4 k to 4 k + 3.
        for j in 0..4 {
            let even = _mm512_shuffle_f32x4::<0x88>(b[j], b[4 + j]);
            let odd = _mm512_shuffle_f32x4::<0xdd>(b[j], b[4 + j]);
            let even_below = _mm512_shuffle_f32x4::<0x88>(b[8 + j], b[12 + j]);
            let odd_below = _mm512_shuffle_f32x4::<0xdd>(b[8 + j], b[12 + j]);
            a[j] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
            a[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
            a[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
            a[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
        }
        a
    }
}

#[inline(always)]
unsafe fn load16_bf16(from: *const bf16) -> __m512 {
    unsafe {
        let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from as *const __m256i));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
    }
}
#[inline(always)]
unsafe fn store16_bf16(to: *mut bf16, value: __m512) {
    unsafe {
        let bits = _mm512_castps_si512(value);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let upper = _mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet));
        _mm256_storeu_si256(to as *mut __m256i, _mm512_cvtepi32_epi16(upper));
    }
}
#[inline(always)]
unsafe fn load8_bf16(from: *const bf16) -> __m256 {
    unsafe {
        let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from as *const __m128i));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}
#[inline(always)]
unsafe fn store8_bf16(to: *mut bf16, value: __m256) {
    unsafe {
        let bits = _mm256_castps_si256(value);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let upper = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(upper, upper));
        _mm_storeu_si128(to as *mut __m128i, _mm256_castsi256_si128(packed));
    }
}

intrinsics!(
    __m512,
    16,
    8,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps,
    load16,
    store16,
    load16_bf16,
    store16_bf16,
    transposed16
);
intrinsics!(
    __m256,
    8,
    4,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps,
    load8,
    store8,
    load8_bf16,
    store8_bf16
);
