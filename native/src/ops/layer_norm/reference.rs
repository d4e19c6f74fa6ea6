//! The loop nest that judges the fast path: f64, one row at a time.

/// y, dx and `[2][c]` gradients of beta and gamma, as the contract writes them.
pub fn all(c: usize, x: &[f32], gamma: &[f32], beta: &[f32], dy: &[f32], eps: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut y, mut dx, mut affine) = (Vec::new(), Vec::new(), vec![0f64; 2 * c]);
    for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
        let mean = x.iter().map(|&v| v as f64).sum::<f64>() / c as f64;
        let variance = x.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / c as f64;
        let rstd = 1.0 / (variance + eps).sqrt();
        let xhat: Vec<f64> = x.iter().map(|&v| (v as f64 - mean) * rstd).collect();
        let g: Vec<f64> = (0..c).map(|i| dy[i] as f64 * gamma[i] as f64).collect();
        let mean_g = g.iter().sum::<f64>() / c as f64;
        let mean_gx = g.iter().zip(&xhat).map(|(g, h)| g * h).sum::<f64>() / c as f64;
        for i in 0..c {
            y.push(gamma[i] as f64 * xhat[i] + beta[i] as f64);
            dx.push(rstd * (g[i] - mean_g - xhat[i] * mean_gx));
            affine[i] += dy[i] as f64;
            affine[c + i] += dy[i] as f64 * xhat[i];
        }
    }
    (y, dx, affine)
}
