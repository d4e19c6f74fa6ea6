//! Vectors of f32 lanes, one type per instruction set, and the one place that picks among them at run time.
//!
//! A `Kernel` is written once over `V: Vector`; `dispatch` compiles it for AVX-512, for AVX2 with FMA and for the
//! baseline. Everything between `Kernel::run` and the lanes must be `inline(always)`, so that it is compiled with the
//! features of its entry.

use super::super::kernels::{Isa, isa};

/// `LANES` values of f32. All functions need the processor features of the type, and valid pointers.
pub trait Vector: Copy {
    const LANES: usize;
    /// Rows of a register tile that is two vectors wide.
    const ROWS: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `n` lanes, the others zero.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Stores the first `n` lanes.
    unsafe fn store_first(self, to: *mut f32, n: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self * factor + term
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// Work on item `index`, written for any vector.
pub trait Kernel: Sync {
    /// # Safety
    /// Call it through `dispatch` only.
    unsafe fn run<V: Vector>(&self, index: usize);
}

/// Runs item `index` with the instruction set of this process.
pub fn dispatch<K: Kernel>(kernel: &K, index: usize) {
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::avx512(kernel, index),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::avx2(kernel, index),
            Isa::Portable => kernel.run::<Plain>(index),
        }
    }
}

/// Eight lanes that any processor has.
#[derive(Clone, Copy)]
pub struct Plain([f32; 8]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Plain, f: impl Fn(f32, f32) -> f32) -> Plain {
        let mut out = self.0;
        for i in 0..8 {
            out[i] = f(self.0[i], other.0[i]);
        }
        Plain(out)
    }
}

impl Vector for Plain {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Plain([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Plain(unsafe { (from as *const [f32; 8]).read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        let mut out = [0f32; 8];
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), n) };
        Plain(out)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { (to as *mut [f32; 8]).write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, n) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        self.zip(factor, |a, b| a * b).zip(term, |a, b| a + b)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Vector};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512<K: Kernel>(kernel: &K, index: usize) {
        unsafe { kernel.run::<__m512>(index) }
    }
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2<K: Kernel>(kernel: &K, index: usize) {
        unsafe { kernel.run::<__m256>(index) }
    }

    /// All methods but the masked ones are one intrinsic each.
    macro_rules! intrinsics {
        ($vector:ty, $lanes:literal, $rows:literal, $set1:ident, $load:ident, $store:ident, $add:ident, $sub:ident,
         $mul:ident, $fma:ident, $load_first:expr, $store_first:expr) => {
            impl Vector for $vector {
                const LANES: usize = $lanes;
                const ROWS: usize = $rows;
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
                unsafe fn store(self, to: *mut f32) {
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn store_first(self, to: *mut f32, n: usize) {
                    unsafe { $store_first(to, n, self) }
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
        store16
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
        store8
    );
}
