//! Every instruction set and both storage types against the loop nest.

use super::isa::{self, Isa};
use super::{Shape, Up, cpu, reference};
use crate::element::{Dtype, Element, convert};
use crate::grid::Grid;
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

fn f32s<E: Element>(values: &[E]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    convert(values, &mut out);
    out
}

/// f32 sums: 2e-5 of the largest value. A stored bf16 is off by half a unit of its 8 bits, 2^-9 of its size. bf16
/// weights (where the processor multiplies bf16) add up to 2^-9 of every product, with random signs: 2^-8 in all.
fn close<E: Element>(got: &[E], want: &[f32], tolerance: f32, what: &str) {
    let scale = want.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in f32s(got).iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{what}, value {i}: {g} against {w}, scale {scale}");
    }
}

/// Tolerances of stored values and of weight gradients, whose operands are exact and whose sums are f32.
fn tolerances<E: Element>() -> (f32, f32) {
    (if E::DTYPE == Dtype::F32 { 2e-5 } else { 1.0 / 256.0 }, 2e-5)
}

fn check<E: Element>(isa: Isa) {
    let (stored, summed) = tolerances::<E>();
    let mask = [1u8, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0];
    for (side, c_in, c_out) in [
        ([4, 4, 4], 3, 5),
        ([1, 1, 1], 17, 33),
        ([2, 3, 5], 8, 40),
        ([6, 2, 8], 1, 16),
        ([3, 2, 6], 12, 40),
        ([1, 2, 1], 128, 128),
        ([2, 1, 3], 131, 137),
        ([2, 35, 37], 2, 3),
        ([3, 1, 37], 32, 64),
    ] {
        for (kernel, stride) in [(1, 1), (3, 1), (3, 2)] {
            let s = Shape { side, c_in, c_out, kernel, stride };
            let what = format!("{isa:?} {} {s:?}", E::DTYPE.name());
            let grid = Grid::new(2, [2, 2, 2], &mask).unwrap();
            let x = noise::<E>(grid.blocks.len() * s.in_voxels() * c_in, 1);
            let w = noise::<f32>(s.weight_len(), 2);
            let b = noise::<f32>(c_out, 3);
            let dy = noise::<E>(grid.blocks.len() * s.out_voxels() * c_out, 4);
            let (mut y, mut want) = (vec![E::from_f32(9.0); dy.len()], vec![0.0; dy.len()]);
            cpu::forward(&s, &grid, &x, &w, (Some(&b), false), &mut y);
            reference::forward(&s, &grid, &f32s(&x), &w, Some(&b), &mut want);
            close(&y, &want, stored, &format!("y of {what}"));
            let (mut dx, mut want) = (vec![E::from_f32(9.0); x.len()], vec![0.0; x.len()]);
            cpu::grad_input(&s, &grid, &dy, &w, &mut dx);
            reference::grad_input(&s, &grid, &f32s(&dy), &w, &mut want);
            close(&dx, &want, stored, &format!("dx of {what}"));
            let (mut dw, mut want) = (vec![9.0; w.len()], vec![0.0; w.len()]);
            cpu::grad_weight(&s, &grid, &x, &dy, &mut dw);
            reference::grad_weight(&s, &grid, &f32s(&x), &f32s(&dy), &mut want);
            close(&dw, &want, summed, &format!("dw of {what}"));
        }
    }
}

/// The transposed convolution is the gradient of a 2x2x2 convolution with stride 2, written out here.
fn check_up<E: Element>(isa: Isa) {
    let (stored, summed) = tolerances::<E>();
    for (side, c_in, c_out) in [([2, 3, 4], 5, 3), ([1, 1, 1], 33, 16), ([4, 1, 3], 16, 40), ([1, 3, 5], 64, 32)] {
        let s = Up { blocks: 3, side, c_in, c_out };
        let what = format!("{isa:?} {} {s:?}", E::DTYPE.name());
        let (x, w) = (noise::<E>(s.rows() * c_in, 1), noise::<f32>(8 * c_in * c_out, 2));
        let (b, dy) = (noise::<f32>(c_out, 3), noise::<E>(8 * s.rows() * c_out, 4));
        let (xs, dys) = (f32s(&x), f32s(&dy));
        let mut want_y: Vec<f32> = (0..dy.len()).map(|i| b[i % c_out]).collect();
        let (mut want_dx, mut want_dw) = (vec![0f32; x.len()], vec![0f32; w.len()]);
        for row in 0..s.rows() {
            let (block, v) = (row / s.voxels(), row % s.voxels());
            let (z, y, x) = (v / (side[1] * side[2]), v / side[2] % side[1], v % side[2]);
            for t in 0..8 {
                let line = (block * 2 * side[0] + 2 * z + (t >> 2)) * 2 * side[1] + 2 * y + (t >> 1 & 1);
                let child = line * 2 * side[2] + 2 * x + (t & 1);
                for ci in 0..c_in {
                    for co in 0..c_out {
                        let at = (ci * c_out + co) * 8 + t;
                        want_y[child * c_out + co] += xs[row * c_in + ci] * w[at];
                        want_dx[row * c_in + ci] += dys[child * c_out + co] * w[at];
                        want_dw[at] += xs[row * c_in + ci] * dys[child * c_out + co];
                    }
                }
            }
        }
        let (mut y, mut dx) = (vec![E::from_f32(9.0); dy.len()], vec![E::from_f32(9.0); x.len()]);
        let mut dw = vec![9.0; w.len()];
        cpu::up_forward(&s, &x, &w, &b, &mut y);
        close(&y, &want_y, stored, &format!("y of {what}"));
        cpu::up_grad_input(&s, &dy, &w, &mut dx);
        close(&dx, &want_dx, stored, &format!("dx of {what}"));
        cpu::up_grad_weight(&s, &x, &dy, &mut dw);
        close(&dw, &want_dw, summed, &format!("dw of {what}"));
    }
}

#[test]
fn every_path_equals_the_loop_nest() {
    let _forcing = isa::FORCING.lock();
    for isa in isa::available() {
        isa::force(Some(isa));
        check::<f32>(isa);
        check::<bf16>(isa);
        check_up::<f32>(isa);
        check_up::<bf16>(isa);
    }
    isa::force(None);
}
