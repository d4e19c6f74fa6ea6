//! Which way a convolution is computed: the one place that says so. The choice depends on shapes, storage type and
//! instruction set only, so the bits are the same on any number of threads; `vx_conv3d_algorithm` forces it for tests and
//! measurements. The tables at the top of `winograd`, `few` and `tile` are what the numbers here come from.
//!
//! | 3x3x3, stride 1 | way |
//! |---|---|
//! | 1024 output voxels or fewer, 2^14 pairs of channels or more; stride 1: where `few::beats_winograd` says so, or no Winograd applies | on the weights as they lie (`few`), with stride 2, too |
//! | even sides, f32 with 8 channels or more, bf16 with multiples of 16 | Winograd |
//! | the same with f32 operands, sides along y and x that 4 divides, 216 tiles or more | Winograd in wide tiles |
//! | the same of whole volumes with odd sides of 3 or more | Winograd on sides rounded up (`rounded`) |
//! | bf16, c_in and c_out multiples of 32, AMX (by the reference's measurements, `amx`: not measured here) | directly |
//! | everything else, and stride 2, 1x1x1 and transposed convolutions | directly |

use super::Shape;
use super::isa::{isa, tiles as registers};
use super::kernels::in_pairs;
use super::vector::Path;
use super::{amx, few, rounded, winograd};
use crate::element::{Dtype, Element};
use crate::grid::Grid;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What is computed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Direction {
    Forward,
    GradInput,
    GradWeight,
}

/// How it is computed.
pub enum Way {
    Direct,
    Few(Path),
    Winograd(Path),
    /// Winograd on sides rounded up to even ones.
    Rounded(Path),
}

/// Choices of `vx_conv3d_algorithm`.
const RULE: u32 = 0;
const DIRECT: u32 = 1;
const WINOGRAD_PAIRS: u32 = 3;
const RULE_F32: u32 = 4;
const WINOGRAD_WIDE: u32 = 5;

/// See `vx_conv3d_algorithm`.
static CHOICE: AtomicU32 = AtomicU32::new(RULE);

exports! {
    /// How 3x3x3 convolutions with stride 1 are computed. 0: by the measured rule; 1: directly; 2: by Winograd where
    /// possible, with f32 operands; 3: the same, multiplying bf16 tensors as bf16 where the processor can; 4: by the measured
    /// rule, but multiplying bf16 tensors in f32 in the forward pass and the data gradient; 5: as 2, in wide tiles where
    /// possible.
    fn vx_conv3d_algorithm(choice: u32) {
        if choice > WINOGRAD_WIDE {
            return Err(format!("conv3d algorithm {choice} is not offered; use 0 to {WINOGRAD_WIDE}"));
        }
        CHOICE.store(choice, Relaxed);
        Ok(0.0)
    }
}

/// The way for tensors of `E`.
///
/// bf16 operands double the rate of bf16 tensors, but round the transformed values: relative RMS error 5e-3 of a result
/// in place of 1.7e-3 (the rounding of its storage). Training does not see it: the same curves and the same scores after
/// fine-tuning, within the spread of seeds (docs/measurements.md); `--precision bf16-exact` does without.
pub fn way<E: Element>(s: &Shape, grid: &Grid, direction: Direction) -> Way {
    let choice = CHOICE.load(Relaxed);
    let free = choice == RULE || choice == RULE_F32;
    let weight = direction == Direction::GradWeight;
    let even = winograd::applies(s);
    let possible = even || rounded::applies(s, grid);
    let tiles = grid.blocks.len() * rounded::even(s).out_voxels() / 8;
    let pays = match E::DTYPE {
        Dtype::F32 => s.c_in.min(s.c_out) >= 8,
        // Rows of bf16 that end inside a vector are slow.
        Dtype::Bf16 => s.c_in.is_multiple_of(16) && s.c_out.is_multiple_of(16),
    };
    let few = Path::new(isa(), E::DTYPE == Dtype::Bf16, false);
    let fewer = || !(possible && pays) || few::beats_winograd(s, grid, tiles, few.operands);
    if free && few::beats_direct(s, grid) && fewer() {
        return Way::Few(few);
    }
    if choice == RULE && in_pairs::<E>() && registers().is_some() && amx::takes(s.c_in, s.c_out) {
        return Way::Direct;
    }
    if choice == DIRECT || free && !pays || !possible {
        return Way::Direct;
    }
    let pairs = matches!(choice, RULE | WINOGRAD_PAIRS) || choice == RULE_F32 && weight;
    // With fewer tiles the 144 transformed values of a weight cost more than is saved.
    let wide = winograd::widens(&rounded::even(s)) && (free && tiles >= 216 || choice == WINOGRAD_WIDE);
    let path = Path::new(isa(), pairs && E::DTYPE == Dtype::Bf16, wide);
    if even { Way::Winograd(path) } else { Way::Rounded(path) }
}
