//! The inner loop of the linear layers: a register tile of 12 rows by 32 columns over packed panels.
//!
//! Share of the peak of one Zen 5 core that just before ran at 479 GFLOP/s in bf16 and 255 in f32, whole products with
//! packing and storing, 2026-11-21 (a shared machine: a few percent either way). The loop alone reaches 92 to 99 %.
//!
//! | rows, width to width | bf16 forward, dx, dw | f32 forward, dx, dw |
//! |---|---|---|
//! | 16384, 2048 to 2048 | 87, 87, 81 % | 81, 79, 76 % |
//! | 16384, 2048 to 512 | 92, 87, 78 % | 85, 85, 75 % |
//! | 1728, 2304 to 864 | 90, 91, 91 % | 83, 85, 79 % |
//! | 1728, 864 to 864 | 88, 90, 86 % | 83, 83, 85 % |
//! | 432, 864 to 2304 | 79, 86, 85 % | 77, 81, 86 % |
//! | 432, 864 to 864 | 83, 84, 87 % | 79, 83, 87 % |
//!
//! Few rows pay for packing the weights: 4 rows of 2048 reach 5 %, and so do few channels (32 to 128: 40, 30, 28 %).

use crate::ops::conv3d::isa::{Isa, isa};

/// Rows of a register tile.
pub const M: usize = 12;
/// Columns of a register tile.
pub const N: usize = 32;

/// sums[i][j] = (add ? sums[i][j] : 0) + sum over lanes of a[lane][i] * b[lane][j], `[M][N]`; a lane of bf16 is a pair.
///
/// Unsafe: a holds `lanes * M`, b `lanes * N`, sums `M * N` values, on a processor that has the instructions.
pub type Tile = unsafe fn(a: *const u32, b: *const u32, lanes: usize, sums: *mut f32, add: bool);

/// The tile for lanes of `group` values.
pub fn tile(group: usize) -> Tile {
    match (isa(), group) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16, 2) => avx512bf16,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Bf16, 1) => avx512,
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, 1) => avx2,
        (_, 1) => portable,
        (isa, _) => unreachable!("{isa:?} does not multiply pairs"),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn avx512bf16(a: *const u32, b: *const u32, lanes: usize, sums: *mut f32, add: bool) {
    use std::arch::x86_64::*;
    use std::mem::transmute;
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); 2]; M];
        if add {
            for (i, row) in acc.iter_mut().enumerate() {
                *row = std::array::from_fn(|j| _mm512_loadu_ps(sums.add(i * N + 16 * j)));
            }
        }
        let (mut a, mut b) = (a as *const i32, b as *const i32);
        for _ in 0..lanes {
            let columns: [__m512bh; 2] = std::array::from_fn(|j| transmute(_mm512_loadu_epi32(b.add(16 * j))));
            for (i, row) in acc.iter_mut().enumerate() {
                let pair: __m512bh = transmute(_mm512_set1_epi32(*a.add(i)));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = _mm512_dpbf16_ps(*sum, column, pair);
                }
            }
            (a, b) = (a.add(M), b.add(N));
        }
        for (i, row) in acc.iter().enumerate() {
            (0..2).for_each(|j| _mm512_storeu_ps(sums.add(i * N + 16 * j), row[j]));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(a: *const u32, b: *const u32, lanes: usize, sums: *mut f32, add: bool) {
    use std::arch::x86_64::*;
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); 2]; M];
        if add {
            for (i, row) in acc.iter_mut().enumerate() {
                *row = std::array::from_fn(|j| _mm512_loadu_ps(sums.add(i * N + 16 * j)));
            }
        }
        let (mut a, mut b) = (a as *const f32, b as *const f32);
        for _ in 0..lanes {
            let columns: [__m512; 2] = std::array::from_fn(|j| _mm512_loadu_ps(b.add(16 * j)));
            for (i, row) in acc.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*a.add(i));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(value, column, *sum);
                }
            }
            (a, b) = (a.add(M), b.add(N));
        }
        for (i, row) in acc.iter().enumerate() {
            (0..2).for_each(|j| _mm512_storeu_ps(sums.add(i * N + 16 * j), row[j]));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(a: *const u32, b: *const u32, lanes: usize, sums: *mut f32, add: bool) {
    use std::arch::x86_64::*;
    const ROWS: usize = 6;
    unsafe {
        for (half, part) in (0..M / ROWS).flat_map(|half| (0..2).map(move |part| (half, part))) {
            let sums = sums.add(half * ROWS * N + 16 * part);
            let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
            if add {
                for (i, row) in acc.iter_mut().enumerate() {
                    *row = std::array::from_fn(|j| _mm256_loadu_ps(sums.add(i * N + 8 * j)));
                }
            }
            let (mut a, mut b) = ((a as *const f32).add(half * ROWS), (b as *const f32).add(16 * part));
            for _ in 0..lanes {
                let columns: [__m256; 2] = std::array::from_fn(|j| _mm256_loadu_ps(b.add(8 * j)));
                for (i, row) in acc.iter_mut().enumerate() {
                    let value = _mm256_set1_ps(*a.add(i));
                    for (sum, column) in row.iter_mut().zip(columns) {
                        *sum = _mm256_fmadd_ps(value, column, *sum);
                    }
                }
                (a, b) = (a.wrapping_add(M), b.wrapping_add(N));
            }
            for (i, row) in acc.iter().enumerate() {
                (0..2).for_each(|j| _mm256_storeu_ps(sums.add(i * N + 8 * j), row[j]));
            }
        }
    }
}

unsafe fn portable(a: *const u32, b: *const u32, lanes: usize, sums: *mut f32, add: bool) {
    let (a, b, sums) = unsafe {
        (
            std::slice::from_raw_parts(a as *const f32, lanes * M),
            std::slice::from_raw_parts(b as *const f32, lanes * N),
            std::slice::from_raw_parts_mut(sums, M * N),
        )
    };
    for (i, sums) in sums.chunks_exact_mut(N).enumerate() {
        for (j, sums) in sums.chunks_exact_mut(8).enumerate() {
            let mut acc = [0f32; 8];
            if add {
                acc.copy_from_slice(sums);
            }
            for (a, b) in a.chunks_exact(M).zip(b.chunks_exact(N)) {
                acc.iter_mut().zip(&b[8 * j..8 * j + 8]).for_each(|(s, b)| *s += a[i] * b);
            }
            sums.copy_from_slice(&acc);
        }
    }
}
