//! The loop nest that judges: the loss in f64, straight from its definition.

use super::left_out;

pub fn loss(student: &[f32], teacher: &[f32], n: usize, c: usize, temperature: f64) -> f64 {
    let row = |i: usize| if i < n { &teacher[i * c..][..c] } else { &student[(i - n) * c..][..c] };
    let similarity =
        |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>() / temperature;
    let mut total = 0.0;
    for i in 0..2 * n {
        let sum: f64 = (0..2 * n).filter(|j| !left_out(i, n).contains(j)).map(|j| similarity(i, j).exp()).sum();
        total += sum.ln() - similarity(i, (i + n) % (2 * n));
    }
    total / (2 * n) as f64
}

#[cfg(test)]
mod tests {
    use super::super::cpu;

    fn wave(n: usize, a: f64, b: f64) -> Vec<f32> {
        (0..n).map(|i| (a * i as f64 + b).sin() as f32).collect()
    }

    #[test]
    fn loss_and_gradient_are_those_of_the_definition() {
        let (n, c, tau) = (10, 37, 0.5);
        let (mut s, t) = (wave(n * c, 0.7, 0.1), wave(n * c, 1.3, 0.4));
        s.iter_mut().for_each(|v| *v *= 0.2);
        let rows = cpu::stack(&t, &s);
        let mut products = vec![0f32; 4 * n * n];
        cpu::products(&rows, &rows, c, 1.0 / tau as f32, &mut products);
        assert!((cpu::loss(&products, n) - super::loss(&s, &t, n, c, tau)).abs() < 1e-4);
        let mut ds = vec![0f32; n * c];
        cpu::gradient(&products, &rows, n, c, 1.0 / (2 * n) as f64 / tau, &mut ds);
        for i in (0..n * c).step_by(31) {
            let at = |by: f32| {
                let mut moved = s.clone();
                moved[i] += by;
                super::loss(&moved, &t, n, c, tau)
            };
            let numeric = (at(0.01) - at(-0.01)) / 0.02;
            assert!((numeric - ds[i] as f64).abs() < 1e-3, "{i}: {numeric} {}", ds[i]);
        }
    }
}
