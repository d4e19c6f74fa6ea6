//! Which instructions the convolutions use: the best of this processor, or what a test forces.

use crate::ops::amx::{self, Amx};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Instruction sets, each of which includes those before it.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub enum Isa {
    Portable = 1,
    /// AVX2 with FMA, f32.
    Avx2 = 2,
    /// AVX-512, f32.
    Avx512 = 3,
    /// AVX-512 with products of bf16 pairs (vdpbf16ps) for bf16 tensors; f32 tensors as before.
    Avx512Bf16 = 4,
    /// The same, and tile registers where they take a product of bf16 (`amx`).
    Amx = 5,
    /// The same with tile registers that are emulated, for tests.
    AmxEmulated = 6,
}

const ALL: [Isa; 6] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx, Isa::AmxEmulated];

/// 0: the best one.
static FORCED: AtomicU32 = AtomicU32::new(0);

fn best() -> Isa {
    static BEST: OnceLock<Isa> = OnceLock::new();
    *BEST.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                return if is_x86_feature_detected!("avx512bf16") { Isa::Avx512Bf16 } else { Isa::Avx512 };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    })
}

/// The instruction set in use, of those for vectors.
pub fn isa() -> Isa {
    match FORCED.load(Relaxed) {
        0 => best(),
        forced => ALL[forced.min(Isa::Avx512Bf16 as u32) as usize - 1],
    }
}

/// Tile registers in use.
pub fn tiles() -> Option<Amx> {
    match FORCED.load(Relaxed) {
        0 => offers(Isa::Amx).then_some(Amx::Unit),
        forced if forced == Isa::Amx as u32 => Some(Amx::Unit),
        forced if forced == Isa::AmxEmulated as u32 => Some(Amx::Emulated),
        _ => None,
    }
}

fn offers(isa: Isa) -> bool {
    match isa {
        Isa::Amx => best() == Isa::Avx512Bf16 && amx::ready(),
        Isa::AmxEmulated => best() == Isa::Avx512Bf16,
        vectors => vectors <= best(),
    }
}

/// What this processor offers.
pub fn available() -> impl Iterator<Item = Isa> {
    ALL.into_iter().filter(|&isa| offers(isa))
}

/// Forces an instruction set that is available, or with None gives the choice back.
pub fn force(isa: Option<Isa>) {
    FORCED.store(isa.map_or(0, |isa| isa as u32), Relaxed);
}

/// Held by tests that force.
#[cfg(test)]
pub static FORCING: std::sync::Mutex<()> = std::sync::Mutex::new(());

exports! {
    /// Forces the convolutions and linear layers to an instruction set (1 portable, 2 AVX2, 3 AVX-512, 4 AVX-512 with bf16, 5 AMX, 6 AMX emulated; 0: the best). The vectors in use.
    fn vx_force_isa(level: u32) {
        if level != 0 && !available().any(|isa| isa as u32 == level) {
            return Err(format!("instruction set {level} is not offered by this processor; the best is {}", best() as u32));
        }
        force(ALL.into_iter().find(|&isa| isa as u32 == level));
        Ok(isa() as u32 as f64)
    }
}
