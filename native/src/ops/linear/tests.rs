//! Every instruction set and both storage types against sums in f64, and the bits of one core and two.

use super::factors::Factors;
use super::{forward, grad_input, grad_weight};
use crate::element::{Dtype, Element};
use crate::ops::conv3d::isa::{self, Isa};
use crate::tensor::{Buffer, Tensor};
use half::bf16;

fn noise<E: Element>(n: usize, seed: u64) -> Vec<E> {
    let mut s = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
    let next = |_| {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        E::from_f32((s >> 40) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..n).map(next).collect()
}

/// sum over k of a(i, k) b(k, j), and of the products' sizes.
fn reference(
    [m, n, depth]: [usize; 3],
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<(f64, f64)> {
    let term = |i, j, k| a(i, k) as f64 * b(k, j) as f64;
    let sum = |i, j| (0..depth).fold((0.0, 0.0), |(s, t), k| (s + term(i, j, k), t + term(i, j, k).abs()));
    (0..m * n).map(|at| sum(at / n, at % n)).collect()
}

/// Sums of f32: 2^-18 of the sum of the products' sizes. bf16 weights add up to 2^-8 of it, a bf16 result 2^-8 of itself.
fn close<C: Element>(got: &[C], want: &[(f64, f64)], rounded: bool, what: &str) {
    let own = if C::DTYPE == Dtype::Bf16 { 2f64.powi(-8) } else { 0.0 };
    let sums = 2f64.powi(-18) + if rounded { 2f64.powi(-8) } else { 0.0 };
    assert_eq!(got.len(), want.len());
    for (i, (g, (w, size))) in got.iter().zip(want).enumerate() {
        let bound = (own * w.abs() + sums * size) * 1.01 + 1e-30;
        assert!((g.to_f32() as f64 - w).abs() <= bound, "{what}, value {i}: {g:?} against {w}, bound {bound}");
    }
}

const SHAPES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [1, 5, 3],
    [7, 3, 2],
    [13, 33, 31],
    [12, 32, 32],
    [40, 65, 17],
    [100, 96, 130],
    [5, 1, 3100],
    [3, 3200, 2],
    [3300, 20, 37],
    [40, 530, 600],
    [500, 1100, 520], // a left factor cut to the second cache
];

fn all<E: Element>([rows, c_in, c_out]: [usize; 3]) -> (Vec<E>, Vec<E>, Vec<f32>) {
    let (x, dy) = (noise::<E>(rows * c_in, 1), noise::<E>(rows * c_out, 4));
    let (w, b) = (noise::<f32>(c_in * c_out, 2), noise::<f32>(c_out, 3));
    let nine = E::from_f32(9.0);
    let (mut y, mut dx, mut dw) = (vec![nine; dy.len()], vec![nine; x.len()], vec![9.0; w.len()]);
    forward([c_in, c_out], &x, &w, Some(&b), &mut y);
    grad_input([c_in, c_out], &dy, &w, &mut dx);
    grad_weight([c_in, c_out], &x, &dy, &mut dw);
    (y, dx, dw)
}

fn check<E: Element>(isa: Isa) {
    for shape in SHAPES {
        let [rows, c_in, c_out] = shape;
        let what = format!("{isa:?} {} {shape:?}", E::DTYPE.name());
        let (x, dy) = (noise::<E>(rows * c_in, 1), noise::<E>(rows * c_out, 4));
        let (w, b) = (noise::<f32>(c_in * c_out, 2), noise::<f32>(c_out, 3));
        let rounded = isa >= Isa::Avx512Bf16 && E::DTYPE == Dtype::Bf16;
        let (y, dx, dw) = all::<E>(shape);
        let (at_x, at_dy) =
            (|i: usize, k: usize| x[i * c_in + k].to_f32(), |i: usize, k: usize| dy[i * c_out + k].to_f32());
        let mut want = reference([rows, c_out, c_in], at_x, |k, j| w[j * c_in + k]);
        for (i, (sum, size)) in want.iter_mut().enumerate() {
            *sum += b[i % c_out] as f64;
            *size += b[i % c_out].abs() as f64;
        }
        close(&y, &want, rounded, &format!("{what} y"));
        let want = reference([rows, c_in, c_out], at_dy, |k, j| w[k * c_in + j]);
        close(&dx, &want, rounded, &format!("{what} dx"));
        let want = reference([c_out, c_in, rows], |i, k| at_dy(k, i), at_x);
        close(&dw, &want, false, &format!("{what} dw"));
    }
}

#[test]
fn every_instruction_set_equals_sums_in_f64() {
    let _forcing = isa::FORCING.lock();
    for level in isa::available() {
        isa::force(Some(level));
        check::<f32>(level);
        check::<bf16>(level);
    }
    isa::force(None);
}

#[test]
fn cores_do_not_change_the_bits() {
    let _forcing = isa::FORCING.lock(); // another set between the two would
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    for shape in SHAPES {
        assert!(pool(1).install(|| all::<f32>(shape)) == pool(3).install(|| all::<f32>(shape)));
        assert!(pool(1).install(|| all::<bf16>(shape)) == pool(3).install(|| all::<bf16>(shape)));
    }
}

/// Strips have the bits of the whole gradient; the norm is that of its values.
#[test]
fn factors_make_the_gradient() {
    let _forcing = isa::FORCING.lock();
    let tensor = |n: usize, seed: u64| -> Tensor {
        let tensor = Buffer::with_len(n, Dtype::Bf16);
        tensor.of_mut().copy_from_slice(&noise::<bf16>(n, seed));
        tensor
    };
    for (level, [rows, c_in, c_out]) in isa::available().flat_map(|isa| SHAPES.map(|shape| (isa, shape))) {
        isa::force(Some(level));
        // Three layers on one x; the last is narrower.
        let x = tensor(rows * c_in, 1);
        let layers = [(c_out, 4), (c_out, 5), (c_out.div_ceil(2), 6)];
        let made = layers.map(|(c, seed)| Factors::new([c_in, c], &x, &tensor(rows * c, seed)));
        let made: Vec<_> = made.iter().flatten().collect();
        assert!(made.iter().all(|f| f.shares(made[0])));
        let mut squares = 0.0;
        for (factors, (c, _)) in made.iter().zip(layers) {
            let mut want = vec![9.0; c_in * c];
            factors.fill(&mut want);
            factors.strips(|_| {}, |strip, values| assert!(values == &want[strip], "{level:?} {rows} {c_in} {c}"));
            squares += want.iter().map(|&v| v as f64 * v as f64).sum::<f64>();
        }
        if !made.is_empty() {
            let error = (Factors::sum_of_squares(&made) - squares).abs() / squares;
            assert!(error < 1e-5, "{level:?} {rows} {c_in} {c_out}: {error}");
        }
        let other = Factors::new([c_in, c_out], &tensor(rows * c_in, 1), &tensor(rows * c_out, 4));
        assert!(made.iter().zip(&other).all(|(f, other)| !f.shares(other)));
    }
    isa::force(None);
}
