//! Loops over the rows of a `[rows][channels]` tensor whose rows are sorted by sample. Rows are cut into pieces of a
//! fixed size that never cross samples: sums add up f64 partial sums in the order of the pieces, so their bits do
//! not depend on the number of cores.

use crate::abi::Result;
use crate::grid;
use crate::memory::Scratch;
use rayon::prelude::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_loadu_ps, _mm_prefetch, _mm_sfence, _mm_stream_ps};
use std::ops::Range;

/// Values per piece: large enough to pay for a task, small enough for the cache.
const PIECE: usize = 1 << 14;

/// Rows per piece at least: a piece of few wide rows has as many sums as values.
const LEAST: usize = 64;

/// Bytes of rows that go through the first cache strip by strip of their channels: of wide rows a few, or the strips would share
/// its sets and the next ones would not be foreseen.
const NEAR: usize = 32 << 10;

/// Asks for what a pass over strips reads `AHEAD` bytes after `at`.
#[inline(always)]
pub fn soon<E>(at: *const E) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>((at as *const i8).wrapping_add(AHEAD))
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Rows of `channels` values that are summed strip by strip.
pub fn near<E>(channels: usize) -> usize {
    (NEAR / (channels * size_of::<E>()).max(1)).max(1)
}

/// See `soon`: of bf16 eight strips.
const AHEAD: usize = 512;

/// Sums of pieces that one task adds up.
const TOGETHER: usize = 512;

/// Some rows of one sample.
pub struct Piece {
    pub sample: usize,
    pub rows: Range<usize>,
}

/// First row of each sample and the number of rows at the end; grid 0 is one sample of `voxels` rows.
pub fn starts(grid: u32, voxels: u32) -> Result<Vec<usize>> {
    let voxels = voxels as usize;
    if grid == 0 {
        return Ok(vec![0, voxels]);
    }
    Ok(grid::get(grid)?.starts.iter().map(|s| s * voxels).collect())
}

/// Cuts the rows of each sample into pieces.
pub fn pieces(starts: &[usize], channels: usize) -> Vec<Piece> {
    let step = (PIECE / channels).max(LEAST);
    let mut list = Vec::new();
    for (sample, span) in starts.windows(2).enumerate() {
        for at in (span[0]..span[1]).step_by(step) {
            list.push(Piece { sample, rows: at..(at + step).min(span[1]) });
        }
    }
    list
}

/// Per sample, `width` sums of what `add` adds to its slice for each piece: `[samples][width]`.
pub fn sums(pieces: &[Piece], samples: usize, width: usize, add: impl Fn(&Piece, &mut [f64]) + Sync) -> Vec<f64> {
    fill_and_sum(pieces, 0, &mut [(); 0], samples, width, |piece, _, sum| add(piece, sum))
}

/// `fill` and `sums` in one pass.
pub fn fill_and_sum<E: Send>(
    pieces: &[Piece],
    channels: usize,
    out: &mut [E],
    samples: usize,
    width: usize,
    body: impl Fn(&Piece, &mut [E], &mut [f64]) + Sync,
) -> Vec<f64> {
    let mut partial = Scratch::<f64>::zeros(pieces.len() * width);
    parts(pieces, channels, out)
        .into_par_iter()
        .zip(partial.par_chunks_exact_mut(width.max(1)))
        .for_each(|((piece, part), sum)| vectorised(|| body(piece, part, sum)));
    let mut total = vec![0f64; samples * width];
    for (sample, total) in total.chunks_exact_mut(width.max(1)).enumerate() {
        let of = pieces.partition_point(|p| p.sample < sample)..pieces.partition_point(|p| p.sample <= sample);
        total.par_chunks_mut(TOGETHER).enumerate().for_each(|(i, total)| {
            for piece in of.clone() {
                total.iter_mut().zip(&partial[piece * width + i * TOGETHER..]).for_each(|(t, p)| *t += p);
            }
        });
    }
    total
}

/// Every piece with its part of `out`, `[rows][channels]`.
fn parts<'a, E>(pieces: &'a [Piece], channels: usize, mut out: &'a mut [E]) -> Vec<(&'a Piece, &'a mut [E])> {
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (part, rest) = out.split_at_mut(piece.rows.len() * channels);
        parts.push((piece, part));
        out = rest;
    }
    parts
}

/// Runs `body` on every piece with its part of `out`, `[rows][channels]`.
pub fn fill<E: Send>(pieces: &[Piece], channels: usize, out: &mut [E], body: impl Fn(&Piece, &mut [E]) + Sync) {
    parts(pieces, channels, out).into_par_iter().for_each(|(piece, part)| vectorised(|| body(piece, part)));
}

/// Bytes from which a new tensor is written past the caches: by the time it is read from its start they would hold its end.
const PAST: usize = 16 << 20;

/// Whether the values of `out`, which nobody has read, are to be written past the caches. See `put`.
pub fn past<E>(out: &[E]) -> bool {
    size_of_val(out) >= PAST
}

/// Stores values; `past` the caches where they are whole cache lines: these are then neither fetched nor kept. `settle` follows.
#[inline(always)]
pub fn put<E: Copy, const W: usize>(values: [E; W], to: &mut [E], past: bool) {
    let to: &mut [E; W] = to.try_into().expect("as many values");
    #[cfg(target_arch = "x86_64")]
    if past && size_of::<[E; W]>().is_multiple_of(64) && to.as_ptr().addr().is_multiple_of(64) {
        let (from, to) = (values.as_ptr() as *const f32, to.as_mut_ptr() as *mut f32);
        for i in (0..size_of::<[E; W]>() / 4).step_by(4) {
            unsafe { _mm_stream_ps(to.add(i), _mm_loadu_ps(from.add(i))) };
        }
        return;
    }
    *to = values;
}

/// Makes what this thread `put` past the caches visible to those who learn that it is done.
pub fn settle() {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_sfence()
    };
}

/// Fills `out` in stretches: `body(first index, part)`, for element-wise ops.
pub fn each<E: Send>(out: &mut [E], body: impl Fn(usize, &mut [E]) + Sync) {
    out.par_chunks_mut(PIECE).enumerate().for_each(|(i, part)| vectorised(|| body(i * PIECE, part)));
}

/// Vectors of this processor: 2 AVX-512, 1 AVX2, 0 the baseline.
#[inline(always)]
pub fn vectors() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
        {
            return 2;
        }
        if is_x86_feature_detected!("avx2") {
            return 1;
        }
    }
    0
}

/// Declares a function that is compiled for the widest vectors of the processor as well as for the baseline. No sum
/// changes its order, nothing is fused, so every width gives the same bits. For hot loops: `vectorised` takes a closure,
/// which the compiler does not always compile anew.
#[macro_export]
macro_rules! wide {
    ($(#[$m:meta])* $v:vis fn $name:ident $(<$g:ident : $b:path>)? ($($a:ident : $t:ty),* $(,)?) $body:block) => {
        $(#[$m])*
        #[allow(clippy::too_many_arguments)]
        $v fn $name $(<$g: $b>)? ($($a: $t),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn plain $(<$g: $b>)? ($($a: $t),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
            #[allow(clippy::too_many_arguments)]
            fn avx512 $(<$g: $b>)? ($($a: $t),*) { plain($($a),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            #[allow(clippy::too_many_arguments)]
            fn avx2 $(<$g: $b>)? ($($a: $t),*) { plain($($a),*) }
            match $crate::ops::rows::vectors() {
                #[cfg(target_arch = "x86_64")]
                2 => unsafe { avx512($($a),*) },
                #[cfg(target_arch = "x86_64")]
                1 => unsafe { avx2($($a),*) },
                _ => plain($($a),*),
            }
        }
    };
}

/// Runs `body` compiled for the widest vectors of this processor, where the compiler takes it in (see `wide!`).
pub fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
        fn avx512<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        #[target_feature(enable = "avx2")]
        fn avx2<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        match vectors() {
            2 => return unsafe { avx512(body) },
            1 => return unsafe { avx2(body) },
            _ => {}
        }
    }
    body()
}
