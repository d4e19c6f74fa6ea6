//! Cubic B-splines: interpolation weights and the recursive prefilter (Unser, Aldroubi and Eden 1993; Unser 1999).
//!
//! The prefilter is a recursion along each axis, so it is arranged for independent sequences side by side: rows of x by
//! sixteen, then y inside the same plane while that is in the cache, then z in place, one column block per task.
//! Bodies are inlined into copies for AVX-512, AVX2 and the baseline, chosen at run time.

use rayon::prelude::*;

/// Pole of the cubic B-spline: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Rows of x filtered together.
const ROWS: usize = 16;
/// Values of x in one column block of the z pass.
const COLUMN: usize = 64;

/// Calls `$body` in a copy of the enclosing function that is compiled for the best vectors of this processor.
macro_rules! for_best_vectors {
    (fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:path) => {
        fn $name($($arg: $type),*) -> $out {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
                fn wide($($arg: $type),*) -> $out { $body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $type),*) -> $out { $body($($arg),*) }
                if is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("fma") {
                    return unsafe { wide($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    return unsafe { middle($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}
pub(super) use for_best_vectors;

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

/// Weights of the sum that starts the causal pass over `n` values (mirror boundary), times the gain of the filter.
fn start(n: usize) -> Vec<f32> {
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
unsafe fn filter(data: *mut f32, n: usize, stride: usize, width: usize, start: &[f32]) {
    let (pole, gain) = (POLE as f32, GAIN as f32);
    let row = |i: usize| unsafe { std::slice::from_raw_parts_mut(data.add(i * stride), width) };
    let mut state = [0f32; COLUMN];
    let state = &mut state[..width];
    for (k, w) in start.iter().enumerate() {
        state.iter_mut().zip(row(k)).for_each(|(s, v)| *s += w * *v);
    }
    row(0).copy_from_slice(state);
    for i in 1..n {
        row(i).iter_mut().zip(state.iter_mut()).for_each(|(v, s)| {
            *s = gain * *v + pole * *s;
            *v = *s;
        });
    }
    let end = (POLE / (POLE * POLE - 1.0)) as f32;
    let before = row(n - 2);
    row(n - 1).iter_mut().zip(state.iter_mut()).zip(before).for_each(|((v, s), b)| {
        *s = end * (*v + pole * *b);
        *v = *s;
    });
    for i in (0..n - 1).rev() {
        row(i).iter_mut().zip(state.iter_mut()).for_each(|(v, s)| {
            *s = pole * (*s - *v);
            *v = *s;
        });
    }
}

/// x and y of one plane [ny][nx].
#[inline(always)]
fn plane_body(plane: &mut [f32], ny: usize, nx: usize) {
    if nx > 1 {
        let begin = start(nx);
        let mut side = vec![0f32; nx * ROWS];
        for rows in plane.chunks_mut(ROWS * nx) {
            let count = rows.len() / nx;
            for (r, row) in rows.chunks_exact(nx).enumerate() {
                row.iter().enumerate().for_each(|(i, v)| side[i * ROWS + r] = *v);
            }
            unsafe { filter(side.as_mut_ptr(), nx, ROWS, ROWS, &begin) };
            for (r, row) in rows.chunks_exact_mut(nx).enumerate().take(count) {
                row.iter_mut().enumerate().for_each(|(i, v)| *v = side[i * ROWS + r]);
            }
        }
    }
    if ny > 1 {
        let begin = start(ny);
        for x in (0..nx).step_by(COLUMN) {
            unsafe { filter(plane.as_mut_ptr().add(x), ny, nx, COLUMN.min(nx - x), &begin) };
        }
    }
}

for_best_vectors!(fn filter_plane(plane: &mut [f32], ny: usize, nx: usize) -> () = plane_body);

#[derive(Clone, Copy)]
struct Shared(*mut f32);
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

/// One column block along z.
#[inline(always)]
fn column_body(data: Shared, n: usize, stride: usize, width: usize, start: &[f32]) {
    unsafe { filter(data.0, n, stride, width, start) }
}

for_best_vectors!(fn filter_column(data: Shared, n: usize, stride: usize, width: usize, start: &[f32]) -> () = column_body);

/// Turns samples [z][y][x] into cubic B-spline coefficients, in place.
pub fn prefilter(data: &mut [f32], [nz, ny, nx]: [usize; 3]) {
    let plane = ny * nx;
    data.par_chunks_mut(plane).for_each(|slab| filter_plane(slab, ny, nx));
    if nz > 1 {
        let begin = start(nz);
        let all = Shared(data.as_mut_ptr());
        (0..plane.div_ceil(COLUMN)).into_par_iter().for_each(|block| {
            let (at, all) = (block * COLUMN, all);
            filter_column(Shared(unsafe { all.0.add(at) }), nz, plane, COLUMN.min(plane - at), &begin);
        });
    }
}
