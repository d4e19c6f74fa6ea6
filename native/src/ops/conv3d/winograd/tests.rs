//! All ways of Winograd against the loop nest.

use super::super::vector::{Operands, Path};
use super::super::{Shape, isa, reference};
use super::Parts;
use crate::element::{Dtype, Element};
use crate::grid::Grid;

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut s = seed.wrapping_mul(0x9e3779b97f4a7c15) | 1;
    (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Root of the mean squared difference, relative to the root mean square of `want`.
fn error(got: &[f32], want: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| got.iter().zip(want).map(|(g, w)| f(*g as f64, *w as f64)).sum::<f64>();
    (sum(&|g, w| (g - w) * (g - w)) / sum(&|_, w| w * w).max(1e-30)).sqrt()
}

/// Sums left for a norm against those of y, in another order.
fn judge_sums(y: &[f32], grid: &Grid, s: &Shape, sums: Option<Vec<f64>>) {
    let (c, Some(sums)) = (s.c_out, sums) else { return };
    for (n, span) in grid.starts.windows(2).enumerate() {
        let rows = &y[span[0] * s.out_voxels() * c..span[1] * s.out_voxels() * c];
        for i in 0..c {
            let of = |f: &dyn Fn(f64) -> f64| rows.iter().skip(i).step_by(c).map(|&v| f(v as f64)).sum::<f64>();
            let close = |got: f64, want: f64, size: f64| assert!((got - want).abs() <= 1e-12 * size, "{got} {want}");
            close(sums[2 * n * c + i], of(&|v| v), of(&|v| v.abs()));
            close(sums[(2 * n + 1) * c + i], of(&|v| v * v), of(&|v| v * v));
        }
    }
}

/// All three directions on tensors of `E`, against the loop nest on the same values.
fn judge<E: Element>(path: Path, side: [usize; 3], (c_in, c_out): (usize, usize), grid: &Grid) {
    let s = Shape { side, c_in, c_out, kernel: 3, stride: 1 };
    let n = grid.blocks.len() * s.out_voxels();
    let stored = |n: usize, seed: u64| noise(n, seed).into_iter().map(E::from_f32).collect::<Vec<E>>();
    let wide = |v: &[E]| v.iter().map(|v| v.to_f32()).collect::<Vec<f32>>();
    let (x, w, b, dy) = (stored(n * c_in, 1), noise(s.weight_len(), 2), noise(c_out, 3), stored(n * c_out, 4));
    // f32: the order of the sums. bf16 tensors: results are rounded once. bf16 operands: both factors of each product
    // are rounded, the expected error is 5.3e-3.
    let (data, weight) = match (E::DTYPE, path.operands) {
        (Dtype::F32, _) => (2e-6, 2e-6),
        (_, Operands::F32) => (2e-3, 2e-6),
        _ => (8e-3, 8e-3),
    };
    let check = |what: &str, got: &[f32], want: &[f32], most: f64| {
        let e = error(got, want);
        assert!(e < most, "{what} {side:?} {c_in} -> {c_out} {:?} {path:?}: relative RMS error {e:e}", E::DTYPE);
    };
    let (mut y, mut want) = (stored(n * c_out, 5), vec![0.0; n * c_out]);
    let sums = super::forward(path, &s, grid, Parts::one(&x, c_in), &w, (Some(&b), true), &mut y);
    judge_sums(&wide(&y), grid, &s, sums);
    reference::forward(&s, grid, &wide(&x), &w, Some(&b), &mut want);
    check("forward", &wide(&y), &want, data);
    let (mut dx, mut want) = (stored(n * c_in, 5), vec![0.0; n * c_in]);
    super::grad_input(path, &s, grid, false, &dy, &w, Parts::one_mut(&mut dx, c_in));
    reference::grad_input(&s, grid, &wide(&dy), &w, &mut want);
    check("data gradient", &wide(&dx), &want, data);
    let (mut dw, mut want) = (vec![9.0; w.len()], vec![0.0; w.len()]);
    super::grad_weight(path, &s, grid, Parts::one(&x, c_in), &dy, &mut dw);
    reference::grad_weight(&s, grid, &wide(&x), &wide(&dy), &mut want);
    check("weight gradient", &dw, &want, weight);
    if c_in % 32 == 0 {
        let half = |part: usize| x.chunks(c_in / 2).skip(part).step_by(2).flatten().copied().collect::<Vec<E>>();
        let (halves, mut dw) = ([half(0), half(1)], vec![9.0; w.len()]);
        let parts = Parts { of: halves.each_ref().map(|x| &x[..]), c: [c_in / 2; 2] };
        super::grad_weight(path, &s, grid, parts, &dy, &mut dw);
        check("weight gradient of two parts", &dw, &want, weight);
    }
}

fn judge_all<E: Element>(path: Path) {
    let masked = Grid::new(2, [2, 2, 2], &[1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0]).unwrap();
    for (side, channels) in [
        ([2, 2, 2], (16, 16)),
        ([4, 4, 4], (17, 33)),
        ([6, 6, 6], (16, 24)),
        ([2, 4, 6], (40, 16)),
        ([4, 2, 8], (3, 70)),
    ] {
        judge::<E>(path, side, channels, &masked);
    }
    let dense = Grid::new(2, [1, 1, 1], &[1, 1]).unwrap();
    judge::<E>(path, [8, 8, 8], (20, 16), &dense);
    judge::<E>(path, [4, 6, 32], (16, 36), &dense);
    judge::<E>(path, [2, 2, 300], (5, 5), &dense);
    judge::<E>(path, [2, 6, 2], (75, 21), &dense);
    judge::<E>(path, [2, 2, 6], (80, 37), &masked);
    judge::<E>(path, [2, 2, 2], (33, 70), &masked);
    // Many channels on both sides, few tiles.
    judge::<E>(path, [2, 2, 2], (96, 80), &masked);
    judge::<E>(path, [4, 2, 2], (70, 75), &masked);
    judge::<E>(path, [2, 4, 2], (75, 80), &dense);
}

/// Tiles of 2x4x4.
fn judge_wide<E: Element>(isa: isa::Isa) {
    let path = Path::new(isa, false, true);
    let masked = Grid::new(2, [2, 2, 2], &[1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0]).unwrap();
    for (side, channels) in [([2, 4, 4], (16, 16)), ([4, 4, 4], (17, 33)), ([2, 8, 4], (3, 70)), ([6, 4, 12], (40, 16))]
    {
        judge::<E>(path, side, channels, &masked);
    }
    let dense = Grid::new(2, [1, 1, 1], &[1, 1]).unwrap();
    judge::<E>(path, [8, 8, 8], (20, 16), &dense);
    judge::<E>(path, [4, 12, 32], (16, 36), &dense);
    judge::<E>(path, [2, 4, 300], (5, 5), &dense);
    judge::<E>(path, [2, 4, 4], (75, 130), &dense);
    judge::<E>(path, [2, 4, 4], (96, 80), &masked);
}

#[test]
fn every_instruction_set_equals_the_loop_nest_in_f32() {
    isa::available().for_each(|isa| {
        judge_all::<f32>(Path::new(isa, false, false));
        judge_wide::<f32>(isa);
    });
}

#[test]
fn every_instruction_set_equals_the_loop_nest_in_bf16() {
    isa::available().for_each(|isa| {
        judge_all::<half::bf16>(Path::new(isa, false, false));
        judge_wide::<half::bf16>(isa);
    });
}

#[test]
fn bf16_operands_equal_the_loop_nest_within_their_rounding() {
    judge_all::<half::bf16>(Path::new(isa::isa(), true, false));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for (side, c_in, c_out, wide) in
        [([32, 16, 32], 18, 70, false), ([4, 6, 4], 40, 130, false), ([32, 32, 32], 18, 70, true)]
    {
        let s = Shape { side, c_in, c_out, kernel: 3, stride: 1 };
        let grid = Grid::new(1, [1, 1, 1], &[1]).unwrap();
        let n = s.out_voxels();
        let (x, w, dy) = (noise(n * s.c_in, 1), noise(s.weight_len(), 2), noise(n * s.c_out, 3));
        let path = Path::new(isa::isa(), false, wide);
        let run = |threads: usize| {
            let (mut y, mut dw) = (vec![0.0; n * s.c_out], vec![0.0; w.len()]);
            let sums = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let sums = super::forward(path, &s, &grid, Parts::one(&x, c_in), &w, (None, true), &mut y);
                super::grad_weight(path, &s, &grid, Parts::one(&x, c_in), &dy, &mut dw);
                sums
            });
            (y, dw, sums)
        };
        assert!(run(1) == run(13));
    }
}
