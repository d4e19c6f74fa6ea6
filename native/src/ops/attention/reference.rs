//! The loop nest that judges the fast path: f64, the whole matrix of scores.

use super::Shape;

/// y, dq, dk, dv as the contract writes them.
pub fn all(s: &Shape, q: &[f32], k: &[f32], v: &[f32], dy: &[f32]) -> [Vec<f64>; 4] {
    let (c, h) = (s.channels(), s.width);
    let mut out = [q, q, k, k].map(|x| vec![0f64; x.len()]);
    let [y, dq, dk, dv] = &mut out;
    let scale = 1.0 / (h as f64).sqrt();
    for (queries, keys) in s.queries.windows(2).zip(s.keys.windows(2)) {
        for head in 0..s.heads {
            let at = |row: usize, d: usize| row * c + head * h + d;
            let dot = |a: &[f32], i: usize, b: &[f32], j: usize| -> f64 {
                (0..h).map(|d| a[at(i, d)] as f64 * b[at(j, d)] as f64).sum()
            };
            for i in queries[0]..queries[1] {
                let scores: Vec<f64> = (keys[0]..keys[1]).map(|j| dot(q, i, k, j) * scale).collect();
                let top = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|v| (v - top).exp()).sum();
                let p: Vec<f64> = scores.iter().map(|v| (v - top).exp() / total).collect();
                let dp: Vec<f64> = (keys[0]..keys[1]).map(|j| dot(dy, i, v, j)).collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, d)| p * d).sum();
                for (n, j) in (keys[0]..keys[1]).enumerate() {
                    let ds = p[n] * (dp[n] - mean) * scale;
                    for d in 0..h {
                        y[at(i, d)] += p[n] * v[at(j, d)] as f64;
                        dv[at(j, d)] += p[n] * dy[at(i, d)] as f64;
                        dq[at(i, d)] += ds * k[at(j, d)] as f64;
                        dk[at(j, d)] += ds * q[at(i, d)] as f64;
                    }
                }
            }
        }
    }
    out
}
