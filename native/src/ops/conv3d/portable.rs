//! The inner loops in plain Rust, compiled for the baseline and for AVX2 with FMA.

use super::kernels::{M, N, Tile, Weights};

/// # Safety
/// As `Operand::tile`, on a processor with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub unsafe fn tile_avx2(
    a: *const f32,
    from: &[u32; M],
    taps: &[u32],
    w: Weights<f32>,
    first: Option<&[f32; N]>,
    tile: &mut Tile,
) {
    unsafe { self::tile(a, from, taps, w, first, tile) }
}

/// # Safety
/// As `Operand::tile`.
#[inline(always)]
pub unsafe fn tile(
    a: *const f32,
    from: &[u32; M],
    taps: &[u32],
    w: Weights<f32>,
    first: Option<&[f32; N]>,
    tile: &mut Tile,
) {
    for j in (0..w.width).step_by(8) {
        for half in [0, M / 2] {
            let mut acc = [[0f32; 8]; M / 2];
            for (i, row) in acc.iter_mut().enumerate() {
                row.copy_from_slice(first.map_or(&tile[(half + i) * N + j..][..8], |start| &start[j..j + 8]));
            }
            for (t, &tap) in taps.iter().enumerate() {
                for k in 0..w.c {
                    let columns: &[f32; 8] = unsafe { &*(w.at.add((t * w.c + k) * w.width + j) as *const [f32; 8]) };
                    for (i, row) in acc.iter_mut().enumerate() {
                        let value = unsafe { *a.add((from[half + i] + tap) as usize + k) };
                        for (sum, column) in row.iter_mut().zip(columns) {
                            *sum += value * column;
                        }
                    }
                }
            }
            for (i, row) in acc.iter().enumerate() {
                tile[(half + i) * N + j..][..8].copy_from_slice(row);
            }
        }
    }
}

/// # Safety
/// As `Operand::outer`, on a processor with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub unsafe fn outer_avx2(a: *const f32, bases: &[u32], places: &[u32], rows: *const f32, width: usize, out: *mut f32) {
    unsafe { outer(a, bases, places, rows, width, out) }
}

/// # Safety
/// As `Operand::outer`.
#[inline(always)]
pub unsafe fn outer(a: *const f32, bases: &[u32], places: &[u32], rows: *const f32, width: usize, out: *mut f32) {
    for j in (0..width).step_by(32) {
        let m = 32.min(width - j);
        for (i, &place) in places.iter().enumerate() {
            let mut acc = [0f32; 32];
            for (v, &base) in bases.iter().enumerate() {
                let (value, row) = unsafe {
                    (*a.add((base + place) as usize), std::slice::from_raw_parts(rows.add(v * width + j), m))
                };
                acc.iter_mut().zip(row).for_each(|(sum, d)| *sum += value * d);
            }
            for (q, sum) in acc.iter().enumerate().take(m) {
                unsafe { *out.add(i * width + j + q) += sum };
            }
        }
    }
}
