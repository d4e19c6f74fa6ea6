//! What tensors store: f32, or bf16 (the upper half of an f32, 8 significant bits) for activations and their
//! gradients. Parameters, statistics and losses stay f32, and every sum is taken in f32 or f64.

use crate::abi::Result;
use crate::memory::Plain;
use half::bf16;

/// Storage type of a tensor; its number crosses the boundary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dtype {
    F32 = 0,
    Bf16 = 1,
}

impl Dtype {
    pub fn parse(number: u32) -> Result<Dtype> {
        match number {
            0 => Ok(Dtype::F32),
            1 => Ok(Dtype::Bf16),
            _ => Err(format!("dtype {number} is not offered; use 0 (f32) or 1 (bf16)")),
        }
    }
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }
}

/// A stored number. Loops over `to_f32` and `from_f32` vectorise, so ops need no converted copies.
pub trait Element: Plain + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    const DTYPE: Dtype;
    /// The same value, exactly.
    fn to_f32(self) -> f32;
    /// The nearest stored value, ties to even.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(value: f32) -> f32 {
        value
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> bf16 {
        let bits = value.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        let nan = (bits >> 16) as u16 | 0x40;
        bf16::from_bits(if value.is_nan() { nan } else { rounded })
    }
}

/// One row in another type; a plain copy where the types agree.
#[inline(always)]
pub fn convert<A: Element, B: Element>(from: &[A], to: &mut [B]) {
    if A::DTYPE == B::DTYPE {
        let n = from.len().min(to.len());
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr() as *const B, to.as_mut_ptr(), n) };
        return;
    }
    for (to, from) in to.iter_mut().zip(from) {
        *to = B::from_f32(from.to_f32());
    }
}

/// Runs `body` with the type `E` that a dtype names.
#[macro_export]
macro_rules! by_dtype {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            $crate::element::Dtype::F32 => {
                type $E = f32;
                $body
            }
            $crate::element::Dtype::Bf16 => {
                type $E = half::bf16;
                $body
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        // 256 + k is exact for even k only; odd ones lie half way.
        assert_eq!(
            [256.0, 257.0, 258.0, 259.0, 259.1].map(|v| bf16::from_f32(v).to_f32()).map(|v| v as u32),
            [256, 256, 258, 260, 260]
        );
        assert!(<bf16 as Element>::from_f32(f32::NAN).to_f32().is_nan());
        assert_eq!(<bf16 as Element>::from_f32(-f32::INFINITY).to_f32(), f32::NEG_INFINITY);
        for i in 0..u16::MAX {
            let (ours, theirs) = (bf16::from_bits(i), bf16::from_bits(i).to_f32());
            assert!(Element::to_f32(ours).to_bits() == theirs.to_bits() || theirs.is_nan());
            let between = f32::from_bits((i as u32) << 16 | (i as u32).wrapping_mul(40503) & 0xffff);
            let (a, b) = (<bf16 as Element>::from_f32(between), bf16::from_f32(between));
            assert!(a == b || between.is_nan(), "{between}");
        }
    }
}
