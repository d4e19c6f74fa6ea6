//! The two inner loops of every convolution, in f32: AVX-512 where the processor has it, else a portable loop that is
//! compiled for AVX2 with FMA as well as for the baseline.

use std::sync::OnceLock;

/// Weights as the loop reads them: `[tile of output channels][tap][input channel][tile width]`, zero padded.
pub struct Packed {
    pub c_in: usize,
    pub c_out: usize,
    taps: usize,
    /// Output channels per tile: 32, or 16 where no more are needed.
    width: usize,
    values: Vec<f32>,
}

impl Packed {
    /// Packs `at(c_out, c_in, tap)` for the listed taps.
    pub fn new(c_in: usize, c_out: usize, taps: &[usize], at: impl Fn(usize, usize, usize) -> f32 + Sync) -> Packed {
        use rayon::prelude::*;
        let width = if c_out <= 16 { 16 } else { 32 };
        let tiles = c_out.div_ceil(width);
        let mut values = vec![0f32; tiles * taps.len() * c_in * width];
        values.par_chunks_mut(taps.len() * c_in * width).enumerate().for_each(|(tile, part)| {
            for (t, rows) in part.chunks_exact_mut(c_in * width).enumerate() {
                for (ci, row) in rows.chunks_exact_mut(width).enumerate() {
                    for (co, value) in row.iter_mut().enumerate().take((c_out - tile * width).min(width)) {
                        *value = at(tile * width + co, ci, taps[t]);
                    }
                }
            }
        });
        Packed { c_in, c_out, taps: taps.len(), width, values }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

pub(super) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    })
}

/// Voxels per register tile.
const M: usize = 8;

/// out[outs[v] + co] = bias[co] + sum over taps t and channels k of a[bases[v] + taps[t] + k] * w[t][k][co].
///
/// # Safety
/// `out` must hold every `outs[v] + c_out`; `a` is checked by the caller's shapes.
pub unsafe fn direct(
    a: &[f32],
    bases: &[u32],
    taps: &[u32],
    w: &Packed,
    bias: Option<&[f32]>,
    out: *mut f32,
    outs: &[u32],
) {
    debug_assert_eq!(taps.len(), w.taps);
    let reach = *taps.iter().max().unwrap_or(&0) as usize + w.c_in;
    assert!(bases.iter().all(|&b| b as usize + reach <= a.len()), "convolution reads outside its scratch");
    let mut tile = [0f32; M * 32];
    let part = w.taps * w.c_in * w.width;
    for (index, weights) in w.values.chunks_exact(part).enumerate() {
        let first = index * w.width;
        let n = (w.c_out - first).min(w.width);
        let mut start = [0f32; 32];
        if let Some(bias) = bias {
            start[..n].copy_from_slice(&bias[first..first + n]);
        }
        for v in (0..bases.len()).step_by(M) {
            let m = M.min(bases.len() - v);
            let mut from = [bases[v]; M]; // a short last tile repeats its first voxel
            from[..m].copy_from_slice(&bases[v..v + m]);
            unsafe {
                match (isa(), w.width) {
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, 16) => {
                        tile_avx512::<1>(a.as_ptr(), &from, taps, w.c_in, weights.as_ptr(), &start, &mut tile)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512, _) => {
                        tile_avx512::<2>(a.as_ptr(), &from, taps, w.c_in, weights.as_ptr(), &start, &mut tile)
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, _) => {
                        tile_avx2(a.as_ptr(), &from, taps, w.c_in, w.width, weights.as_ptr(), &start, &mut tile)
                    }
                    (Isa::Portable, _) => {
                        tile_portable(a.as_ptr(), &from, taps, w.c_in, w.width, weights.as_ptr(), &start, &mut tile)
                    }
                }
                for i in 0..m {
                    std::ptr::copy_nonoverlapping(tile.as_ptr().add(i * 32), out.add(outs[v + i] as usize + first), n);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<const V: usize>(
    a: *const f32,
    from: &[u32; M],
    taps: &[u32],
    c_in: usize,
    w: *const f32,
    start: &[f32; 32],
    tile: &mut [f32; M * 32],
) {
    use std::arch::x86_64::*;
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); V]; M];
        for row in &mut acc {
            for (j, value) in row.iter_mut().enumerate() {
                *value = _mm512_loadu_ps(start.as_ptr().add(16 * j));
            }
        }
        let mut weights = w;
        for &tap in taps {
            let rows: [*const f32; M] = std::array::from_fn(|i| a.add((from[i] + tap) as usize));
            for k in 0..c_in {
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
                _mm512_storeu_ps(tile.as_mut_ptr().add(i * 32 + 16 * j), *value);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(clippy::too_many_arguments)]
unsafe fn tile_avx2(
    a: *const f32,
    from: &[u32; M],
    taps: &[u32],
    c_in: usize,
    width: usize,
    w: *const f32,
    start: &[f32; 32],
    tile: &mut [f32; M * 32],
) {
    unsafe { tile_portable(a, from, taps, c_in, width, w, start, tile) }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile_portable(
    a: *const f32,
    from: &[u32; M],
    taps: &[u32],
    c_in: usize,
    width: usize,
    w: *const f32,
    start: &[f32; 32],
    tile: &mut [f32; M * 32],
) {
    for j in (0..width).step_by(8) {
        for half in [0, M / 2] {
            let mut acc = [[0f32; 8]; M / 2];
            acc.iter_mut().for_each(|row| row.copy_from_slice(&start[j..j + 8]));
            for (t, &tap) in taps.iter().enumerate() {
                for k in 0..c_in {
                    let columns: &[f32; 8] = unsafe { &*(w.add((t * c_in + k) * width + j) as *const [f32; 8]) };
                    for (i, row) in acc.iter_mut().enumerate() {
                        let value = unsafe { *a.add((from[half + i] + tap) as usize + k) };
                        for (sum, column) in row.iter_mut().zip(columns) {
                            *sum += value * column;
                        }
                    }
                }
            }
            for (i, row) in acc.iter().enumerate() {
                tile[(half + i) * 32 + j..][..8].copy_from_slice(row);
            }
        }
    }
}

/// out[i][j] += sum over v of a[bases[v] + offset + i] * rows[v][j] for `n` <= 8 rows i and `width` columns j.
///
/// # Safety
/// `out` must hold `n * width` values.
pub unsafe fn outer(a: &[f32], bases: &[u32], offset: usize, n: usize, rows: &[f32], width: usize, out: *mut f32) {
    assert!(bases.iter().all(|&b| b as usize + offset + n <= a.len()) && rows.len() >= bases.len() * width);
    for j in (0..width).step_by(32) {
        let m = 32.min(width - j);
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if isa() == Isa::Avx512 {
                match n {
                    8 => outer_avx512::<8>(a.as_ptr().add(offset), bases, rows.as_ptr().add(j), width, m, out.add(j)),
                    _ => {
                        for i in 0..n {
                            let target = out.add(i * width + j);
                            outer_avx512::<1>(
                                a.as_ptr().add(offset + i),
                                bases,
                                rows.as_ptr().add(j),
                                width,
                                m,
                                target,
                            );
                        }
                    }
                }
                continue;
            }
            for i in 0..n {
                let mut acc = [0f32; 32];
                for (v, &base) in bases.iter().enumerate() {
                    let value = a[base as usize + offset + i];
                    for (sum, d) in acc.iter_mut().zip(&rows[v * width + j..][..m]) {
                        *sum += value * d;
                    }
                }
                for (q, sum) in acc.iter().enumerate().take(m) {
                    *out.add(i * width + j + q) += sum;
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn outer_avx512<const N: usize>(
    a: *const f32,
    bases: &[u32],
    rows: *const f32,
    width: usize,
    m: usize,
    out: *mut f32,
) {
    use std::arch::x86_64::*;
    let low = (0xffffu32 >> (16 - m.min(16))) as u16;
    let high = if m > 16 { (0xffffu32 >> (32 - m)) as u16 } else { 0 };
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); 2]; N];
        for (v, &base) in bases.iter().enumerate() {
            let row = rows.add(v * width);
            let d0 = _mm512_maskz_loadu_ps(low, row);
            let d1 = _mm512_maskz_loadu_ps(high, row.wrapping_add(16));
            let p = a.add(base as usize);
            for (i, sums) in acc.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*p.add(i));
                sums[0] = _mm512_fmadd_ps(value, d0, sums[0]);
                sums[1] = _mm512_fmadd_ps(value, d1, sums[1]);
            }
        }
        for (i, sums) in acc.iter().enumerate() {
            let at = out.add(i * width);
            _mm512_mask_storeu_ps(at, low, _mm512_add_ps(_mm512_maskz_loadu_ps(low, at), sums[0]));
            let at = at.wrapping_add(16);
            _mm512_mask_storeu_ps(at, high, _mm512_add_ps(_mm512_maskz_loadu_ps(high, at), sums[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, cpu, reference};
    use crate::grid::Grid;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut s = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
        (0..n)
            .map(|_| {
                s ^= s << 13;
                s ^= s >> 7;
                s ^= s << 17;
                (s >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn close(got: &[f32], want: &[f32]) {
        let scale = want.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= 2e-5 * scale, "value {i}: {g} against {w}");
        }
    }

    #[test]
    fn fast_path_equals_the_loop_nest() {
        let mask = [1u8, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0];
        for (side, c_in, c_out) in [([4, 4, 4], 3, 5), ([1, 1, 1], 17, 33), ([2, 3, 5], 8, 40), ([6, 2, 8], 1, 16)] {
            for (kernel, stride) in [(1, 1), (3, 1), (3, 2)] {
                let s = Shape { side, c_in, c_out, kernel, stride };
                let grid = Grid::new(2, [2, 2, 2], &mask).unwrap();
                let x = noise(grid.blocks.len() * s.in_voxels() * c_in, 1);
                let w = noise(s.weight_len(), 2);
                let b = noise(c_out, 3);
                let dy = noise(grid.blocks.len() * s.out_voxels() * c_out, 4);
                let (mut y, mut want) = (vec![9.0; dy.len()], vec![0.0; dy.len()]);
                cpu::forward(&s, &grid, &x, &w, Some(&b), &mut y);
                reference::forward(&s, &grid, &x, &w, Some(&b), &mut want);
                close(&y, &want);
                let (mut dx, mut want) = (vec![9.0; x.len()], vec![0.0; x.len()]);
                cpu::grad_input(&s, &grid, &dy, &w, &mut dx);
                reference::grad_input(&s, &grid, &dy, &w, &mut want);
                close(&dx, &want);
                let (mut dw, mut want) = (vec![9.0; w.len()], vec![0.0; w.len()]);
                cpu::grad_weight(&s, &grid, &x, &dy, &mut dw);
                reference::grad_weight(&s, &grid, &x, &dy, &mut want);
                close(&dw, &want);
            }
        }
    }
}
