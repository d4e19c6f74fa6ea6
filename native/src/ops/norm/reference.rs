//! The loop nest that judges the fast path: f64, one sample and channel at a time.

use super::Shape;

/// y and dx of the fused op with all its parts, as the contract writes them.
#[allow(clippy::too_many_arguments)]
pub fn all(
    s: &Shape,
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    residual: &[f32],
    dy: &[f32],
    eps: f64,
    slope: f64,
) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut dx) = (vec![0f64; x.len()], vec![0f64; x.len()]);
    for span in s.starts.windows(2) {
        let n = (span[1] - span[0]) as f64;
        for i in 0..s.c {
            let at: Vec<usize> = (span[0]..span[1]).map(|row| row * s.c + i).collect();
            let mean = at.iter().map(|&k| x[k] as f64).sum::<f64>() / n;
            let variance = at.iter().map(|&k| (x[k] as f64 - mean).powi(2)).sum::<f64>() / n;
            let rstd = 1.0 / (variance + eps).sqrt();
            let xhat: Vec<f64> = at.iter().map(|&k| (x[k] as f64 - mean) * rstd).collect();
            let mut g = Vec::new();
            for (&k, xhat) in at.iter().zip(&xhat) {
                let v = gamma[i] as f64 * xhat + beta[i] as f64 + residual[k] as f64;
                y[k] = if v > 0.0 { v } else { slope * v };
                g.push(dy[k] as f64 * if v > 0.0 { 1.0 } else { slope });
            }
            let mean_g = g.iter().sum::<f64>() / n;
            let mean_gx = g.iter().zip(&xhat).map(|(g, h)| g * h).sum::<f64>() / n;
            for ((&k, g), xhat) in at.iter().zip(&g).zip(&xhat) {
                dx[k] = gamma[i] as f64 * rstd * (g - mean_g - xhat * mean_gx);
            }
        }
    }
    (y, dx)
}
