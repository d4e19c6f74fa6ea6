//! The loop nest that judges the fast path, in f64.

use super::Shape;

/// y, dqkv and dtable.
pub fn all(s: &Shape, qkv: &[f32], table: &[f32], dy: &[f32]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (n, c, scale) = (s.tokens, s.channels(), 1.0 / (s.width as f64).sqrt());
    let (mut y, mut dqkv, mut dtable) = (vec![0.0; dy.len()], vec![0.0; qkv.len()], vec![0.0; table.len()]);
    for window in 0..s.windows {
        for head in 0..s.heads {
            let at = |part: usize, i: usize, d: usize| ((window * n + i) * 3 + part) * c + head * s.width + d;
            let out = |i: usize, d: usize| (window * n + i) * c + head * s.width + d;
            let entry = |i: usize, j: usize| (s.place(i) + s.centre() - s.place(j)) * s.heads + head;
            for i in 0..n {
                let scores: Vec<f64> = (0..n)
                    .map(|j| {
                        let dot: f64 = (0..s.width).map(|d| qkv[at(0, i, d)] as f64 * qkv[at(1, j, d)] as f64).sum();
                        let apart = s.regions_of(window).is_some_and(|r| r[i] != r[j]);
                        dot * scale + table[entry(i, j)] as f64 - if apart { 100.0 } else { 0.0 }
                    })
                    .collect();
                let top = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
                let total: f64 = scores.iter().map(|v| (v - top).exp()).sum();
                let p: Vec<f64> = scores.iter().map(|v| (v - top).exp() / total).collect();
                let dp: Vec<f64> = (0..n)
                    .map(|j| (0..s.width).map(|d| dy[out(i, d)] as f64 * qkv[at(2, j, d)] as f64).sum())
                    .collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, d)| p * d).sum();
                for j in 0..n {
                    let ds = p[j] * (dp[j] - mean);
                    dtable[entry(i, j)] += ds;
                    for d in 0..s.width {
                        y[out(i, d)] += p[j] * qkv[at(2, j, d)] as f64;
                        dqkv[at(0, i, d)] += ds * scale * qkv[at(1, j, d)] as f64;
                        dqkv[at(1, j, d)] += ds * scale * qkv[at(0, i, d)] as f64;
                        dqkv[at(2, j, d)] += p[j] * dy[out(i, d)] as f64;
                    }
                }
            }
        }
    }
    (y, dqkv, dtable)
}
