//! The loop nest that judges: the loss in f64, straight from its definition.

use super::Shape;

pub fn loss(s: &Shape, z: &[f32], labels: &[f32]) -> f64 {
    let p = |v: usize, c: usize| {
        let exp = |c: usize| (z[v * s.classes + c] as f64).exp();
        exp(c) / (0..s.classes).map(exp).sum::<f64>()
    };
    let entropy: f64 = (0..s.rows()).map(|v| -p(v, labels[v] as usize).ln()).sum();
    let (groups, size) = if s.batch_dice { (1, s.rows()) } else { (s.n, s.voxels) };
    let mut dice = 0.0;
    for k in 0..groups {
        for c in 1..s.classes {
            let (mut both, mut sum) = (0.0, 0.0);
            for (v, &label) in labels.iter().enumerate().skip(k * size).take(size) {
                let g = (label as usize == c) as u8 as f64;
                both += p(v, c) * g;
                sum += p(v, c) + g;
            }
            dice += (2.0 * both + 1e-5) / (sum + 1e-5);
        }
    }
    entropy / s.rows() as f64 - s.dice as f64 * dice / (groups * (s.classes - 1)) as f64
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, cpu};

    #[test]
    fn loss_and_gradient_are_those_of_the_definition() {
        for (batch_dice, dice) in [(false, 1.0), (true, 1.0), (false, 0.0)] {
            let s = Shape { n: 2, voxels: 30, classes: 3, batch_dice, dice };
            let z: Vec<f32> = (0..180).map(|i| 2.0 * (0.7 * i as f32).sin()).collect();
            let labels: Vec<f32> = (0..60).map(|i| (i * 7 % 5 % 3) as f32).collect();
            assert!((cpu::loss(&s, &z, &labels).unwrap() - super::loss(&s, &z, &labels)).abs() < 1e-6);
            let mut dz = vec![0f32; 180];
            cpu::gradient(&s, &z, &labels, 1.0, &mut dz).unwrap();
            for i in (0..180).step_by(13) {
                let at = |by: f32| {
                    let mut moved = z.clone();
                    moved[i] += by;
                    super::loss(&s, &moved, &labels)
                };
                let numeric = (at(0.01) - at(-0.01)) / 0.02;
                assert!((numeric - dz[i] as f64).abs() < 1e-4, "{i}: {numeric} {}", dz[i]);
            }
        }
    }
}
