//! The loop nests that judge: f64 sums, one value at a time.

pub fn difference(p: &[f32], z: &[f32], c: usize, d: &mut [f64]) {
    for i in 0..c {
        for j in 0..c {
            d[i * c + j] = (0..p.len() / c)
                .map(|r| p[r * c + i] as f64 * p[r * c + j] as f64 - z[r * c + i] as f64 * z[r * c + j] as f64)
                .sum();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn difference_is_the_loop_nest() {
        let wave = |a: f32| (0..60).map(|i| (a * i as f32).sin()).collect::<Vec<f32>>();
        let (p, z) = (wave(0.7), wave(1.3));
        let (mut fast, mut slow) = (vec![0f32; 25], vec![0f64; 25]);
        super::super::difference(&p, &z, 5, &mut fast);
        super::difference(&p, &z, 5, &mut slow);
        assert!(fast.iter().zip(&slow).all(|(a, b)| (*a as f64 - b).abs() < 1e-5));
    }
}
