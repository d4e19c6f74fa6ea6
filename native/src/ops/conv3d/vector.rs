//! Vectors of f32 lanes, one type per instruction set, and the one place that picks among them.
//!
//! A `Kernel` is written once over `V: Vector`; `dispatch` compiles it for AVX-512, for AVX2 with FMA and for the
//! baseline. Everything between `Kernel::run` and the lanes must be `inline(always)`, so that it is compiled with the
//! features of its entry.

// Small matrices read best by index.
#![allow(clippy::needless_range_loop)]

use super::isa::Isa;
use crate::element::{Dtype, Element};
use half::bf16;

/// `LANES` values of f32 and what is computed with them. All functions need the processor features of the type, and valid
/// pointers.
pub trait Lanes: Copy {
    const LANES: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self * factor + term
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The first `n` lanes, the others zero.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
}

/// The lanes of a register.
pub trait Vector: Lanes {
    /// Rows of a register tile that is two vectors wide.
    const ROWS: usize;
    unsafe fn store(self, to: *mut f32);
    /// Stores the first `n` lanes.
    unsafe fn store_first(self, to: *mut f32, n: usize);
    /// Stores rounded values, ties to even.
    unsafe fn store_bf16(self, to: *mut bf16);
    /// Rows as columns, for vectors of 16 lanes.
    unsafe fn transposed(rows: [Self; 16]) -> [Self; 16] {
        rows
    }
}

/// Loads a vector of stored values, or its first `n` lanes where a row of channels ends inside it.
#[inline(always)]
pub unsafe fn load<V: Lanes, E: Element, const WHOLE: bool>(from: *const E, n: usize) -> V {
    unsafe {
        match (E::DTYPE, WHOLE) {
            (Dtype::F32, true) => V::load(from as *const f32),
            (Dtype::F32, false) => V::load_first(from as *const f32, n),
            (Dtype::Bf16, true) => V::load_bf16(from as *const bf16),
            (Dtype::Bf16, false) => {
                let mut row = [bf16::ZERO; 16];
                std::ptr::copy_nonoverlapping(from as *const bf16, row.as_mut_ptr(), n);
                V::load_bf16(row.as_ptr())
            }
        }
    }
}

/// Stores a vector as stored values, or what of it lies before the end of a row of channels, `n` values away.
#[inline(always)]
pub unsafe fn store<V: Vector, O: Operand<V>, E: Element>(value: V, to: *mut E, n: usize) {
    unsafe {
        match (E::DTYPE, n >= V::LANES) {
            (Dtype::F32, true) => value.store(to as *mut f32),
            (Dtype::F32, false) => value.store_first(to as *mut f32, n),
            (Dtype::Bf16, true) => O::round(value, to as *mut bf16),
            (Dtype::Bf16, false) => {
                let mut row = [bf16::ZERO; 16];
                O::round(value, row.as_mut_ptr());
                std::ptr::copy_nonoverlapping(row.as_ptr(), to as *mut bf16, n);
            }
        }
    }
}

/// Work on item `index`, written for any vector.
pub trait Kernel: Sync {
    /// Whether it is ever asked for bf16 operands.
    const PAIRS: bool = true;
    /// # Safety
    /// Call it through `dispatch` only.
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize);
}

/// What the products multiply. bf16 needs a processor with vdpbf16ps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Operands {
    F32,
    Bf16,
}

impl Operands {
    /// Operands that share a 32-bit word.
    pub fn per_word(self) -> usize {
        if self == Operands::Bf16 { 2 } else { 1 }
    }
}

/// How one call computes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Path {
    pub isa: Isa,
    pub operands: Operands,
    /// Tiles of 2x4x4 in place of 2x2x2: sides along y and x are divisible by 4, operands f32.
    pub wide: bool,
}

impl Path {
    /// On instructions `isa`; bf16 operands where wanted and possible, else wide tiles where wanted.
    pub fn new(isa: Isa, pairs: bool, wide: bool) -> Path {
        let operands = if pairs && isa == Isa::Avx512Bf16 { Operands::Bf16 } else { Operands::F32 };
        Path { isa, operands, wide: wide && operands == Operands::F32 }
    }
}

/// How operands lie in 32-bit words: one f32, or two bf16 whose products are added together.
pub trait Operand<V: Vector>: Put<V> {
    /// As many lanes as are best taken in one go, where that many channels follow one another.
    type Strip: Lanes;
    type OfStrip: Put<Self::Strip>;
    /// Stores `PER_WORD` vectors as the operands of as many words as they have lanes.
    unsafe fn put_words(values: [V; 2], to: *mut f32);
    /// Stores values rounded to bf16, ties to even.
    unsafe fn round(value: V, to: *mut bf16);
    /// sum + the products of the operands of a word (the same in all lanes) and of `columns`.
    unsafe fn multiply(word: V, columns: V, sum: V) -> V;
}

/// Lanes on their way into words of operands.
pub trait Put<L: Lanes> {
    /// Operands of a word.
    const PER_WORD: usize;
    /// Stores lanes as neighbouring operands.
    unsafe fn put(value: L, to: *mut f32);
    /// Stores lanes as operand `half` of as many words, half 0 first: the words are there when half 1 is.
    unsafe fn put_half(value: L, half: usize, to: *mut f32);
}

/// f32 operands.
pub struct Single;

impl<V: Vector> Operand<V> for Single {
    type Strip = V;
    type OfStrip = Single;
    #[inline(always)]
    unsafe fn put_words(values: [V; 2], to: *mut f32) {
        unsafe { values[0].store(to) }
    }
    #[inline(always)]
    unsafe fn round(value: V, to: *mut bf16) {
        unsafe { value.store_bf16(to) }
    }
    #[inline(always)]
    unsafe fn multiply(word: V, columns: V, sum: V) -> V {
        unsafe { word.mul_add(columns, sum) }
    }
}

impl<V: Vector> Put<V> for Single {
    const PER_WORD: usize = 1;
    #[inline(always)]
    unsafe fn put(value: V, to: *mut f32) {
        unsafe { value.store(to) }
    }
    #[inline(always)]
    unsafe fn put_half(value: V, _: usize, to: *mut f32) {
        unsafe { value.store(to) }
    }
}

/// Runs item `index`.
pub fn dispatch<K: Kernel>(kernel: &K, path: Path, index: usize) {
    unsafe {
        match path.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 if K::PAIRS && path.operands == Operands::Bf16 => super::x86::avx512_bf16(kernel, index),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => super::x86::avx512(kernel, index),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::x86::avx2(kernel, index),
            _ => kernel.run::<Plain, Single>(index),
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

impl Lanes for Plain {
    const LANES: usize = 8;
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
    unsafe fn load_bf16(from: *const bf16) -> Self {
        let mut out = [0f32; 8];
        for (i, value) in out.iter_mut().enumerate() {
            *value = Element::to_f32(unsafe { *from.add(i) });
        }
        Plain(out)
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

impl Vector for Plain {
    const ROWS: usize = 4;
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { (to as *mut [f32; 8]).write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, n) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        for (i, value) in self.0.iter().enumerate() {
            unsafe { *to.add(i) = Element::from_f32(*value) };
        }
    }
}
