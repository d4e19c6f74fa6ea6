//! What this processor can do at most, measured: the yardstick of `deno task bench`.

use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Multiply-adds of 16 independent registers until `span` is over, on one thread; FLOP per second.
fn rate(span: Duration, chunk: impl Fn(usize) -> f64) -> f64 {
    let (begin, mut flops) = (Instant::now(), 0.0);
    while begin.elapsed() < span {
        flops += chunk(100_000);
    }
    flops / begin.elapsed().as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn f32_512(n: usize) -> f64 {
    use std::arch::x86_64::*;
    let mut a: [__m512; 16] = std::array::from_fn(|i| _mm512_set1_ps(0.1 * i as f32));
    let (x, y) = (_mm512_set1_ps(0.999), _mm512_set1_ps(0.001));
    for _ in 0..n {
        for v in &mut a {
            *v = _mm512_fmadd_ps(*v, x, y);
        }
    }
    black_box(a);
    (n * 16 * 32) as f64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_512(n: usize) -> f64 {
    use std::arch::x86_64::*;
    let mut a: [__m512; 16] = std::array::from_fn(|i| _mm512_set1_ps(0.1 * i as f32));
    let (x, y) = (_mm512_set1_ps(0.01), _mm512_set1_ps(0.02));
    let (x, y) = (_mm512_cvtne2ps_pbh(x, x), _mm512_cvtne2ps_pbh(y, y));
    for _ in 0..n {
        for v in &mut a {
            *v = _mm512_dpbf16_ps(*v, x, y);
        }
    }
    black_box(a);
    (n * 16 * 64) as f64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn f32_256(n: usize) -> f64 {
    use std::arch::x86_64::*;
    let mut a: [__m256; 12] = std::array::from_fn(|i| _mm256_set1_ps(0.1 * i as f32));
    let (x, y) = (_mm256_set1_ps(0.999), _mm256_set1_ps(0.001));
    for _ in 0..n {
        for v in &mut a {
            *v = _mm256_fmadd_ps(*v, x, y);
        }
    }
    black_box(a);
    (n * 12 * 16) as f64
}

fn portable(n: usize) -> f64 {
    let mut a: [f32; 64] = std::array::from_fn(|i| 0.1 * i as f32);
    for _ in 0..n {
        for v in &mut a {
            *v = *v * 0.999 + 0.001;
        }
        black_box(&a);
    }
    (n * 128) as f64
}

/// The fastest loop for f32 (or bf16 with f32 sums) that this processor has; None where it has none.
fn chunk(bf16: bool) -> Option<fn(usize) -> f64> {
    #[cfg(target_arch = "x86_64")]
    {
        if bf16 && is_x86_feature_detected!("avx512bf16") {
            return Some(|n| unsafe { bf16_512(n) });
        }
        if !bf16 && is_x86_feature_detected!("avx512f") {
            return Some(|n| unsafe { f32_512(n) });
        }
        if !bf16 && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Some(|n| unsafe { f32_256(n) });
        }
    }
    (!bf16).then_some(portable)
}

exports! {
    /// Peak FLOP per second of all threads together, f32 or bf16, measured for `milliseconds`; 0: no such instruction.
    fn vx_peak_wait(bf16: bool, milliseconds: u32) {
        let Some(chunk) = chunk(bf16) else { return Ok(0.0) };
        let span = Duration::from_millis(milliseconds as u64);
        Ok(rayon::broadcast(|_| rate(span, chunk)).into_par_iter().sum())
    }
}
