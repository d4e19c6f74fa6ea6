//! The loop nests that judge the fused updates: f64, one value at a time.

use super::cpu::{AdamW, Sgd};

pub fn sgd(rule: &Sgd, factor: f64, p: &mut [f64], g: &[f64], state: &mut [f64]) {
    for i in 0..p.len() {
        let g = g[i] * factor + rule.weight_decay as f64 * p[i];
        state[i] = rule.momentum as f64 * state[i] + g;
        p[i] -= rule.lr as f64 * if rule.nesterov { g + rule.momentum as f64 * state[i] } else { state[i] };
    }
}

pub fn adamw(rule: &AdamW, step: f64, factor: f64, p: &mut [f64], g: &[f64], m: &mut [f64], v: &mut [f64]) {
    for i in 0..p.len() {
        let g = g[i] * factor;
        m[i] = rule.beta1 * m[i] + (1.0 - rule.beta1) * g;
        v[i] = rule.beta2 * v[i] + (1.0 - rule.beta2) * g * g;
        let (first, second) = (m[i] / (1.0 - rule.beta1.powf(step)), v[i] / (1.0 - rule.beta2.powf(step)));
        p[i] = p[i] * (1.0 - rule.lr * rule.weight_decay) - rule.lr * first / (second.sqrt() + rule.eps);
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::{self, Gradient};
    use super::*;

    /// Ten steps from pseudo-random values: the fused f32 update stays with the f64 one.
    #[test]
    fn fused_steps_follow_the_reference() {
        let wave = |n: usize, a: f64| (0..n).map(|i| (a * i as f64).sin()).collect::<Vec<f64>>();
        let single = |x: &[f64]| x.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let near = |a: &[f32], b: &[f64]| a.iter().zip(b).all(|(&a, b)| (a as f64 - b).abs() < 1e-5);
        let n = 20000;
        let mut p = [wave(n, 0.37), wave(n, 0.37)];
        let mut q = [single(&p[0]), single(&p[1])];
        let (mut s, mut m, mut v) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (mut fs, mut fm, mut fv) = (vec![0f32; n], vec![0f32; n], vec![0f32; n]);
        let plain = Sgd { lr: 0.01, momentum: 0.9, nesterov: true, weight_decay: 0.1 };
        let adam = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.05 };
        for step in 1..=10 {
            let g = wave(n, 0.11 * step as f64);
            sgd(&plain, 0.5, &mut p[0], &g, &mut s);
            adamw(&adam, step as f64, 0.5, &mut p[1], &g, &mut m, &mut v);
            let g = single(&g);
            cpu::sgd(&plain, 0.5, &mut q[0], &g, &mut fs, None);
            cpu::adamw(adam.at(step as f32, 0.5), &mut q[1], Gradient::Values(&g), (&mut fm, &mut fv, None), None);
        }
        assert!(near(&q[0], &p[0]) && near(&q[1], &p[1]));
    }
}
