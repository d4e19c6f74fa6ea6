//! The inner loops on pairs of bf16 with f32 sums (vdpbf16ps): register tiles of 8 voxels (or input channels) by 32
//! output channels. A pair is two neighbouring input channels in `tile`, two neighbouring voxels in `outer`.
//!
//! Share of the peak of one Zen 5 core (468 GFLOP/s), whole 3x3x3 convolution with gathering and packing, measured as
//! processor time on a busy machine:
//!
//! | channels, side, batch | forward | input gradient | weight gradient |
//! |---|---|---|---|
//! | 16, 64^3, 1 | 54 % | 54 % | 44 % |
//! | 32, 48^3, 1 | 87 % | 87 % | 75 % |
//! | 64, 24^3, 1 | 87 % | 86 % | 74 % |
//! | 128, 12^3, 1 | 79 % | 74 % | 81 % |
//! | 256, 6^3, 1 | 31 % | 32 % | 41 % |
//! | 320, 4^3, 2 | 20 % | 23 % | 32 % |
//!
//! 16 channels leave half of a register tile empty; the last two rows mostly pack weights.

use super::kernels::{M, N, Tile, Weights};
use half::bf16;
use std::arch::x86_64::*;
use std::mem::transmute;

/// # Safety
/// As `Operand::tile`, on a processor with AVX-512 bf16; `w.width` is `16 * V`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn tile<const V: usize>(
    a: *const bf16,
    from: &[u32; M],
    taps: &[u32],
    w: Weights<bf16>,
    first: Option<&[f32; N]>,
    tile: &mut Tile,
) {
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); V]; M];
        for (i, row) in acc.iter_mut().enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                let at = first.map_or(tile.as_ptr().add(i * N), |start| start.as_ptr());
                *value = _mm512_loadu_ps(at.add(16 * j));
            }
        }
        let mut weights = w.at;
        for &tap in taps {
            let rows: [*const i32; M] = std::array::from_fn(|i| a.add((from[i] + tap) as usize) as *const i32);
            for k in 0..w.c / 2 {
                let columns: [__m512bh; V] =
                    std::array::from_fn(|j| transmute(_mm512_loadu_si512(weights.add(32 * j) as *const __m512i)));
                weights = weights.add(32 * V);
                for i in 0..M {
                    let pair: __m512bh = transmute(_mm512_set1_epi32(rows[i].add(k).read_unaligned()));
                    for j in 0..V {
                        acc[i][j] = _mm512_dpbf16_ps(acc[i][j], pair, columns[j]);
                    }
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                _mm512_storeu_ps(tile.as_mut_ptr().add(i * N + 16 * j), *value);
            }
        }
    }
}

/// # Safety
/// As `Operand::outer`, on a processor with AVX-512 bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn outer(a: *const u32, bases: &[u32], places: &[u32], rows: *const u32, width: usize, out: *mut f32) {
    for j in (0..width).step_by(32) {
        let m = 32.min(width - j);
        unsafe {
            let (rows, out) = (rows.add(j), out.add(j));
            match (<&[u32; 8]>::try_from(places), m > 16) {
                (Ok(places), true) => strip::<8, 2, 1>(a, bases, places, rows, width, m, out),
                (Ok(places), false) => strip::<8, 1, 1>(a, bases, places, rows, width, m, out),
                _ => places
                    .iter()
                    .enumerate()
                    .for_each(|(i, &place)| strip::<1, 2, 4>(a, bases, &[place], rows, width, m, out.add(i * width))),
            }
        }
    }
}

/// `U` voxels add to sums of their own: one row alone would wait for each multiplication.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn strip<const R: usize, const V: usize, const U: usize>(
    a: *const u32,
    bases: &[u32],
    places: &[u32; R],
    rows: *const u32,
    width: usize,
    m: usize,
    out: *mut f32,
) {
    let masks: [u16; 2] =
        [(0xffffu32 >> (16 - m.min(16))) as u16, if m > 16 { (0xffffu32 >> (32 - m)) as u16 } else { 0 }];
    unsafe {
        let mut acc = [[[_mm512_setzero_ps(); V]; R]; U];
        let a = places.map(|place| a.add(place as usize) as *const i32);
        let step = |acc: &mut [[__m512; V]; R], v: usize| {
            let row = rows.add(v * width) as *const i32;
            let columns: [__m512bh; V] =
                std::array::from_fn(|j| transmute(_mm512_maskz_loadu_epi32(masks[j], row.wrapping_add(16 * j))));
            let base = bases[v] as usize;
            for (sums, a) in acc.iter_mut().zip(a) {
                let pair: __m512bh = transmute(_mm512_set1_epi32(*a.add(base)));
                for j in 0..V {
                    sums[j] = _mm512_dpbf16_ps(sums[j], pair, columns[j]);
                }
            }
        };
        let whole = bases.len() / U * U;
        for v in (0..whole).step_by(U) {
            for (u, acc) in acc.iter_mut().enumerate() {
                step(acc, v + u);
            }
        }
        (whole..bases.len()).for_each(|v| step(&mut acc[0], v));
        for i in 0..R {
            for j in 0..V {
                let at = out.wrapping_add(i * width + 16 * j);
                let sums = acc[1..].iter().fold(acc[0][i][j], |sum, acc| _mm512_add_ps(sum, acc[i][j]));
                let sum = _mm512_add_ps(_mm512_maskz_loadu_ps(masks[j], at), sums);
                _mm512_mask_storeu_ps(at, masks[j], sum);
            }
        }
    }
}
