//! The inner loops in f32 with AVX-512: register tiles of 8 voxels (or input channels) by 32 output channels.
//!
//! Share of the peak of one Zen 5 core (234 GFLOP/s), as in `avx512bf16`:
//!
//! | channels, side, batch | forward | input gradient | weight gradient |
//! |---|---|---|---|
//! | 16, 64^3, 1 | 65 % | 65 % | 59 % |
//! | 32, 48^3, 1 | 85 % | 86 % | 79 % |
//! | 64, 24^3, 1 | 86 % | 87 % | 77 % |
//! | 128, 12^3, 1 | 83 % | 83 % | 69 % |
//! | 256, 6^3, 1 | 50 % | 52 % | 51 % |
//! | 320, 4^3, 2 | 35 % | 39 % | 29 % |

use super::kernels::{M, N, Tile, Weights};
use std::arch::x86_64::*;

/// # Safety
/// As `Operand::tile`, on a processor with AVX-512; `w.width` is `16 * V`.
#[target_feature(enable = "avx512f")]
pub unsafe fn tile<const V: usize>(
    a: *const f32,
    from: &[u32; M],
    taps: &[u32],
    w: Weights<f32>,
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
            let rows: [*const f32; M] = std::array::from_fn(|i| a.add((from[i] + tap) as usize));
            for k in 0..w.c {
                let columns: [__m512; V] = std::array::from_fn(|j| _mm512_loadu_ps(weights.add(16 * j)));
                weights = weights.add(16 * V);
                for i in 0..M {
                    let value = _mm512_set1_ps(*rows[i].add(k));
                    for j in 0..V {
                        acc[i][j] = _mm512_fmadd_ps(value, columns[j], acc[i][j]);
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
/// As `Operand::outer`, on a processor with AVX-512.
#[target_feature(enable = "avx512f")]
pub unsafe fn outer(a: *const f32, bases: &[u32], places: &[u32], rows: *const f32, width: usize, out: *mut f32) {
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
#[target_feature(enable = "avx512f")]
unsafe fn strip<const R: usize, const V: usize, const U: usize>(
    a: *const f32,
    bases: &[u32],
    places: &[u32; R],
    rows: *const f32,
    width: usize,
    m: usize,
    out: *mut f32,
) {
    let masks: [u16; 2] =
        [(0xffffu32 >> (16 - m.min(16))) as u16, if m > 16 { (0xffffu32 >> (32 - m)) as u16 } else { 0 }];
    unsafe {
        let mut acc = [[[_mm512_setzero_ps(); V]; R]; U];
        let a = places.map(|place| a.add(place as usize));
        let step = |acc: &mut [[__m512; V]; R], v: usize| {
            let row = rows.add(v * width);
            let columns: [__m512; V] =
                std::array::from_fn(|j| _mm512_maskz_loadu_ps(masks[j], row.wrapping_add(16 * j)));
            let base = bases[v] as usize;
            for (sums, a) in acc.iter_mut().zip(a) {
                let value = _mm512_set1_ps(*a.add(base));
                for j in 0..V {
                    sums[j] = _mm512_fmadd_ps(value, columns[j], sums[j]);
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
