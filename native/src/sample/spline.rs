//! Cubic B-splines: interpolation weights and the recursive prefilter (Unser, Aldroubi and Eden 1993; Unser 1999).

use rayon::prelude::*;

/// Pole of the cubic B-spline: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;

/// Weights of T taps at a distance 0 <= t < 1 behind the tap T/2 - 1: linear for T = 2, cubic B-spline for T = 4.
pub fn weights<const T: usize>(t: f64) -> [f32; T] {
    let mut out = [0f32; T];
    let u = 1.0 - t;
    if T == 2 {
        out[0] = u as f32;
        out[1] = t as f32;
    } else {
        out[0] = (u * u * u / 6.0) as f32;
        out[1] = (2.0 / 3.0 - t * t * (2.0 - t) / 2.0) as f32;
        out[2] = (2.0 / 3.0 - u * u * (2.0 - u) / 2.0) as f32;
        out[3] = (t * t * t / 6.0) as f32;
    }
    out
}

/// What one axis of `n` values needs: weights of the sum that starts the causal pass, mirror boundary.
fn start(n: usize) -> Vec<f32> {
    let period = 2 * n as i32 - 2;
    let scale = 1.0 / (1.0 - POLE.powi(period));
    let weight = |k: usize| {
        let k = k as i32;
        let back = if k == 0 || k == n as i32 - 1 { 0.0 } else { POLE.powi(period - k) };
        ((POLE.powi(k) + back) * scale) as f32
    };
    (0..n.min(28)).map(weight).collect()
}

/// Filters `lanes` independent sequences of n values that lie side by side: value i of lane l is at i * lanes + l.
fn filter(data: &mut [f32], n: usize, lanes: usize, start: &[f32]) {
    let pole = POLE as f32;
    let gain = ((1.0 - POLE) * (1.0 - 1.0 / POLE)) as f32;
    let first: Vec<f32> =
        (0..lanes).map(|l| start.iter().enumerate().map(|(k, w)| w * data[k * lanes + l]).sum::<f32>()).collect();
    data[..lanes].copy_from_slice(&first);
    for i in 1..n {
        let (before, here) = data.split_at_mut(i * lanes);
        for (v, p) in here[..lanes].iter_mut().zip(&before[(i - 1) * lanes..]) {
            *v += pole * p;
        }
    }
    let end = (POLE / (POLE * POLE - 1.0)) as f32;
    let (before, here) = data.split_at_mut((n - 1) * lanes);
    for (v, p) in here.iter_mut().zip(&before[(n - 2) * lanes..]) {
        *v = end * (*v + pole * p);
    }
    for i in (0..n - 1).rev() {
        let (here, after) = data.split_at_mut((i + 1) * lanes);
        for (v, p) in here[i * lanes..].iter_mut().zip(&after[..lanes]) {
            *v = pole * (p - *v);
        }
    }
    for v in data.iter_mut() {
        *v *= gain;
    }
}

/// Turns samples [z][y][x] into cubic B-spline coefficients, in place.
pub fn prefilter(data: &mut [f32], [nz, ny, nx]: [usize; 3]) {
    let plane = ny * nx;
    if nx > 1 {
        let begin = start(nx);
        data.par_chunks_mut(nx).with_min_len(64).for_each(|row| filter(row, nx, 1, &begin));
    }
    if ny > 1 {
        let begin = start(ny);
        data.par_chunks_mut(plane).for_each(|slab| filter(slab, ny, nx, &begin));
    }
    if nz > 1 {
        // Columns along z are gathered per row of x, filtered side by side, and put back.
        let begin = start(nz);
        let source: &[f32] = data;
        let rows: Vec<Vec<f32>> = (0..ny)
            .into_par_iter()
            .map(|y| {
                let mut slab = Vec::with_capacity(nz * nx);
                for z in 0..nz {
                    slab.extend_from_slice(&source[z * plane + y * nx..][..nx]);
                }
                filter(&mut slab, nz, nx, &begin);
                slab
            })
            .collect();
        data.par_chunks_mut(plane).enumerate().for_each(|(z, slab)| {
            for (y, row) in slab.chunks_mut(nx).enumerate() {
                row.copy_from_slice(&rows[y][z * nx..][..nx]);
            }
        });
    }
}
