//! Products of matrices that a library computes, where one is turned on.

use super::graphs::Work;
use super::with;
use crate::abi::Result;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Linear layers ask the library first.
pub(super) static LIBRARY: AtomicBool = AtomicBool::new(false);

/// A product of matrices that lie as in BLAS, columns one after the other: c = op(a) op(b) + bias. `turned`: op transposes;
/// op(a) is m x k, op(b) k x n, bf16, with no gaps; c is m x n, bf16,
/// or f32 where it is `single`; bias: m values of bf16, or 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    pub turned: [bool; 2],
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub bias: u64,
    pub single: bool,
}

impl Product {
    /// Sizes m, n, k; whether a and b are transposed; places of a, b and c.
    pub fn new([m, n, k]: [usize; 3], turned: [bool; 2], [a, b, c]: [u64; 3]) -> Product {
        Product { turned, m, n, k, a, b, c, bias: 0, single: false }
    }
    /// With a bias.
    pub fn with(self, bias: u64) -> Product {
        Product { bias, ..self }
    }
    /// The result in f32.
    pub fn single(self) -> Product {
        Product { single: true, ..self }
    }
    /// Values from one stored column to the next, of a and of b.
    pub fn columns(&self) -> [usize; 2] {
        [if self.turned[0] { self.k } else { self.m }, if self.turned[1] { self.n } else { self.k }]
    }
}

/// Whether linear layers ask cuBLASLt first.
pub fn by_library() -> bool {
    LIBRARY.load(Relaxed)
}

/// Multiplies with cuBLASLt, where it computes this product. False: nothing is done.
pub fn product(product: Product) -> Result<bool> {
    with(|s| Ok(s.driver.multiplies(&product)? && s.take(Work::Product(product)).map(|()| true)?))
}
