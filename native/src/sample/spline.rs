//! Cubic B-splines: interpolation weights and the prefilter (Unser, Aldroubi and Eden 1993; Unser 1999).
//!
//! The prefilter 1 / ((1 - p/z)(1 - pz)) is a recursion along each axis. Along y and z it runs over rows of x side by
//! side; along x, where it would go from voxel to voxel, it is a product of sums instead: 1 / (1 - q) = (1 + q)(1 + q^2)
//! (1 + q^4)(1 + q^8) / (1 - q^16), and p^16 = 7e-10 vanishes in f32.
//! Bodies are inlined into copies for AVX-512, AVX2 and the baseline, chosen at run time.

use rayon::prelude::*;

/// Pole of the cubic B-spline: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Rows of x filtered together: small enough for the first cache.
const ROWS: usize = 8;
/// Mirrored values on either side of a row: 1 + 2 + 4 + 8.
const SIDE: usize = 15;
/// Values of x in one column block of the passes along y and z.
const COLUMN: usize = 64;

/// Defines `$name`, which calls `$body` in a copy that is compiled for the best vectors in use; the last generic parameter
/// is 3 for AVX-512, 2 for AVX2 with FMA, 1 for the baseline.
macro_rules! for_best_vectors {
    (fn $name:ident($($arg:ident: $type:ty),*) = $body:ident[$($generic:literal)?]) => {
        fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use crate::ops::conv3d::isa::{Isa, isa};
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn wide($($arg: $type),*) { $body::<$($generic,)? 3>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $type),*) { $body::<$($generic,)? 2>($($arg),*) }
                if isa() >= Isa::Avx512 && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq") {
                    return unsafe { wide($($arg),*) };
                }
                if isa() >= Isa::Avx2 {
                    return unsafe { middle($($arg),*) };
                }
            }
            $body::<$($generic,)? 1>($($arg),*)
        }
    };
}
pub(super) use for_best_vectors;

/// a * b + c.
#[inline(always)]
pub fn fused<const LEVEL: u32>(a: f32, b: f32, c: f32) -> f32 {
    if LEVEL > 1 { a.mul_add(b, c) } else { a * b + c }
}

/// Weights of T taps at a distance 0 <= t < 1 behind the tap T/2 - 1: linear for T = 2, cubic B-spline for T = 4.
#[inline(always)]
pub fn weights<const T: usize>(t: f32) -> [f32; T] {
    let mut out = [0f32; T];
    let u = 1.0 - t;
    if T == 2 {
        out[0] = u;
        out[1] = t;
    } else {
        out[0] = u * u * u * (1.0 / 6.0);
        out[1] = 2.0 / 3.0 - t * t * (2.0 - t) * 0.5;
        out[2] = 2.0 / 3.0 - u * u * (2.0 - u) * 0.5;
        out[3] = t * t * t * (1.0 / 6.0);
    }
    out
}

/// Index `i` of an axis of `n` voxels, mirrored about the centres of the outermost ones.
pub fn mirror(i: i64, n: usize) -> usize {
    let n = n as i64;
    let j = if i < 0 { -i } else { i.min(2 * n - 2 - i) };
    if j >= 0 && j < n {
        return j as usize; // one reflection is nearly always enough
    }
    if n == 1 {
        return 0;
    }
    let j = i.rem_euclid(2 * n - 2);
    j.min(2 * n - 2 - j) as usize
}

/// Weights of the sum that starts the causal pass over `n` values (mirror boundary), times the gain of the filter.
pub fn start(n: usize) -> Vec<f32> {
    let period = 2 * n as i32 - 2;
    let scale = GAIN / (1.0 - POLE.powi(period));
    let weight = |k: usize| {
        let k = k as i32;
        let back = if k == 0 || k == n as i32 - 1 { 0.0 } else { POLE.powi(period - k) };
        ((POLE.powi(k) + back) * scale) as f32
    };
    (0..n.min(28)).map(weight).collect()
}

const GAIN: f64 = (1.0 - POLE) * (1.0 - 1.0 / POLE);

/// Filters `width` (at most COLUMN) sequences of n values side by side: value i of sequence l is at `i * stride + l`.
///
/// # Safety
/// `data` must hold `(n - 1) * stride + width` values that no other thread touches.
#[inline(always)]
unsafe fn filter<const LEVEL: u32>(data: *mut f32, n: usize, stride: usize, width: usize, start: &[f32]) {
    let (pole, gain) = (POLE as f32, GAIN as f32);
    let row = |i: usize| unsafe { std::slice::from_raw_parts_mut(data.add(i * stride), width) };
    let mut state = [0f32; COLUMN];
    for (k, w) in start.iter().enumerate() {
        state.iter_mut().zip(row(k)).for_each(|(s, v)| *s = fused::<LEVEL>(*w, *v, *s));
    }
    row(0).copy_from_slice(&state[..width]);
    for i in 1..n {
        row(i).iter_mut().zip(&mut state).for_each(|(v, s)| {
            *s = fused::<LEVEL>(pole, *s, gain * *v);
            *v = *s;
        });
    }
    let end = (POLE / (POLE * POLE - 1.0)) as f32;
    let before = row(n - 2);
    row(n - 1).iter_mut().zip(&mut state).zip(before).for_each(|((v, s), b)| {
        *s = end * (*v + pole * *b);
        *v = *s;
    });
    for i in (0..n - 1).rev() {
        row(i).iter_mut().zip(&mut state).for_each(|(v, s)| {
            *s = fused::<LEVEL>(pole, *s, -pole * *v);
            *v = *s;
        });
    }
}

/// `filter` of a block of columns; whole blocks are compiled apart.
#[inline(always)]
unsafe fn columns<const LEVEL: u32>(data: *mut f32, n: usize, stride: usize, width: usize, start: &[f32]) {
    if width == COLUMN {
        unsafe { filter::<LEVEL>(data, n, stride, COLUMN, start) }
    } else {
        unsafe { filter::<LEVEL>(data, n, stride, width, start) }
    }
}

/// `scale` times (1 + pz)(1 + p/z) for q = z^step.
#[inline(always)]
fn stage<const LEVEL: u32>(from: &[f32], to: &mut [f32], step: usize, scale: f64) {
    let pole = POLE.powi(step as i32);
    let (side, centre) = ((pole * scale) as f32, ((1.0 + pole * pole) * scale) as f32);
    let n = to.len();
    let (left, middle, right) = (&from[..n], &from[step..][..n], &from[2 * step..][..n]);
    for i in 0..n {
        to[i] = fused::<LEVEL>(side, left[i] + right[i], centre * middle[i]);
    }
}

/// x and y of a plane [ny][nx] whose row y is the slice `source[y * stride..][..nx]`.
#[inline(always)]
fn plane_body<const LEVEL: u32>(source: &[f32], stride: usize, plane: &mut [f32], ny: usize, nx: usize) {
    let length = nx + 2 * SIDE;
    let (mut a, mut b) = (vec![0f32; ROWS * length], vec![0f32; ROWS * length]);
    for (block, rows) in plane.chunks_mut(ROWS * nx).enumerate() {
        let lines = rows.chunks_exact_mut(nx).enumerate();
        if nx == 1 {
            lines.for_each(|(r, row)| row[0] = source[(block * ROWS + r) * stride]);
            continue;
        }
        for r in 0..rows.len() / nx {
            let (line, from) = (&mut a[r * length..][..length], &source[(block * ROWS + r) * stride..][..nx]);
            line[SIDE..][..nx].copy_from_slice(from);
            for k in 1..=SIDE as i64 {
                line[SIDE - k as usize] = from[mirror(k, nx)];
                line[SIDE + nx - 1 + k as usize] = from[mirror(nx as i64 - 1 + k, nx)];
            }
        }
        // Each step leaves fewer values on the sides; all rows take one step before the next.
        let count = rows.len() / nx;
        let line = |r: usize, n: usize| r * length..r * length + n;
        for r in 0..count {
            stage::<LEVEL>(&a[line(r, length)], &mut b[line(r, length - 2)], 1, -6.0 * POLE);
        }
        for r in 0..count {
            stage::<LEVEL>(&b[line(r, length - 2)], &mut a[line(r, length - 6)], 2, 1.0);
        }
        for r in 0..count {
            stage::<LEVEL>(&a[line(r, length - 6)], &mut b[line(r, length - 14)], 4, 1.0);
        }
        for (r, row) in rows.chunks_exact_mut(nx).enumerate() {
            stage::<LEVEL>(&b[line(r, length - 14)], row, 8, 1.0);
        }
    }
    if ny > 1 {
        let begin = start(ny);
        for x in (0..nx).step_by(COLUMN) {
            unsafe { columns::<LEVEL>(plane.as_mut_ptr().add(x), ny, nx, COLUMN.min(nx - x), &begin) };
        }
    }
}

for_best_vectors!(fn filter_plane(source: &[f32], stride: usize, plane: &mut [f32], ny: usize, nx: usize) = plane_body[]);

#[derive(Clone, Copy)]
struct Shared(*mut f32);
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

/// One column block along z.
#[inline(always)]
fn column_body<const LEVEL: u32>(data: Shared, n: usize, stride: usize, width: usize, start: &[f32]) {
    unsafe { columns::<LEVEL>(data.0, n, stride, width, start) }
}

for_best_vectors!(fn filter_column(data: Shared, n: usize, stride: usize, width: usize, start: &[f32]) = column_body[]);

/// Cubic B-spline coefficients of the voxels `low`..`low + size` of a volume [z][y][x] of `shape`, mirrored at the faces of
/// that region, into `out`.
pub fn prefilter(volume: &[f32], shape: [usize; 3], low: [usize; 3], size: [usize; 3], out: &mut [f32]) {
    let [nz, ny, nx] = size;
    let plane = ny * nx;
    out.par_chunks_mut(plane).enumerate().for_each(|(z, slab)| {
        let first = ((low[0] + z) * shape[1] + low[1]) * shape[2] + low[2];
        filter_plane(&volume[first..], shape[2], slab, ny, nx);
    });
    if nz > 1 {
        let begin = start(nz);
        let all = Shared(out.as_mut_ptr());
        (0..plane.div_ceil(COLUMN)).into_par_iter().for_each(|block| {
            let (at, all) = (block * COLUMN, all);
            filter_column(Shared(unsafe { all.0.add(at) }), nz, plane, COLUMN.min(plane - at), &begin);
        });
    }
}
