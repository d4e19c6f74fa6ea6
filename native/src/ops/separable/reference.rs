//! The loop nest that judges the axis-by-axis path: f64 sums, one output at a time.

use super::Shape;

pub fn resample(s: &Shape, weights: &[f32], x: &[f32], y: &mut [f32]) {
    let ([iz, iy, ix], [oz, oy, ox]) = (s.input, s.output);
    let w = |d: usize, n: usize, o: usize, i: usize| {
        weights[s.axis_start(d) + (n * s.output[d] + o) * s.input[d] + i] as f64
    };
    for (at, y) in y.iter_mut().enumerate() {
        let (c, r, q, p) = (at % s.c, at / s.c % ox, at / s.c / ox % oy, at / s.c / ox / oy % oz);
        let n = at / s.c / ox / oy / oz;
        let mut sum = 0.0;
        for i in 0..iz {
            for j in 0..iy {
                for k in 0..ix {
                    let value = x[(((n * iz + i) * iy + j) * ix + k) * s.c + c] as f64;
                    sum += w(0, n, p, i) * w(1, n, q, j) * w(2, n, r, k) * value;
                }
            }
        }
        *y = sum as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, cpu};

    #[test]
    fn axis_by_axis_is_the_loop_nest() {
        let s = Shape { n: 2, input: [4, 3, 5], output: [3, 6, 2], c: 3 };
        let wave = |n: usize, a: f32| (0..n).map(|i| (a * i as f32).sin()).collect::<Vec<f32>>();
        let mut weights = wave(s.weights_len(), 0.7);
        weights.iter_mut().step_by(3).for_each(|w| *w = 0.0);
        let x = wave(s.input_len(), 1.3);
        let (mut a, mut b) = (vec![9f32; s.output_len()], vec![0f32; s.output_len()]);
        cpu::resample(&s, &weights, &x, &mut a);
        super::resample(&s, &weights, &x, &mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
