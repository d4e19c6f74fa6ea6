//! Transposed convolution 2x2x2 with stride 2: every child voxel is its own 1x1x1 convolution.
//!
//! Milliseconds of two Zen 5 cores in turn, best of 16, 2026-11-22, 64 to 32 channels from 48^3 to 96^3 (at the peak 7.7 in f32, 3.9 in
//! bf16): forward, dx, dw in f32 13.5, 13.3, 17.6; in bf16 10.3, 7.2, 9.8. Before: 17.6, 21.6, 18.8 and 10.9, 13.3, 11.8, with
//! all children of one kind before the next (x read eight times from beyond the L2 cache), rows of dy not asked for ahead (dx waited for
//! them) and the children sorted into memory of their own for dw.

use super::Up;
use super::direct::Shared;
use super::gather::{GATHERED, Part, children, rows_as, units};
use super::kernels::{self, Operand, Packed, Set};
use super::weight::{Factors, Outer, add_outer, put, sum_units};
use crate::element::Element;
use rayon::prelude::*;

fn parts(s: &Up) -> Vec<Part> {
    units(s.blocks, s.side, GATHERED).into_iter().flatten().collect()
}

/// The rows of x that a part covers.
fn rows_of<'a, E>(s: &Up, x: &'a [E], part: &Part, c: usize) -> &'a [E] {
    let plane = s.side[1] * s.side[2];
    &x[(part.block * s.voxels() + part.z0 * plane) * c..][..part.planes() * plane * c]
}

/// The rows of the children of a part in a tensor of `c` channels: where they begin, and how many values.
fn below(s: &Up, part: &Part, c: usize) -> std::ops::Range<usize> {
    let fine = 8 * s.side[1] * s.side[2] * c;
    let first = part.block * s.side[0] + part.z0;
    first * fine..(first + part.planes()) * fine
}

/// y of the transposed convolution.
pub fn forward<E: Element, O: Operand>(s: &Up, x: &[E], w: &[f32], bias: &[f32], y: &mut [E]) {
    let [_, sy, sx] = s.side;
    let packed: Vec<Packed<O>> =
        (0..8).map(|t| Packed::new(s.c_in, s.c_out, &[t], |co, ci, t| w[(ci * s.c_out + co) * 8 + t])).collect();
    let places = children(s.side, s.c_out).1;
    let sets: Vec<Set<O>> = packed.iter().zip(places).map(|(weights, at)| Set { weights, taps: &[0], at }).collect();
    let padded = packed[0].c_in;
    let out = Shared(y.as_mut_ptr());
    parts(s).par_iter().with_max_len(1).for_each(|part| {
        let rows = rows_as::<E, O>(rows_of(s, x, part, s.c_in), s.c_in, padded);
        let bases: Vec<u32> = (0..rows.len() / padded).map(|v| (v * padded) as u32).collect();
        let (outs, _) = children([part.planes(), sy, sx], s.c_out);
        unsafe {
            kernels::direct((&rows, false), &bases, &sets, Some(bias), out.at(below(s, part, s.c_out).start), &outs)
        };
    });
}

/// dx of the transposed convolution: a 2x2x2 convolution with stride 2 over dy.
pub fn grad_input<E: Element, O: Operand>(s: &Up, dy: &[E], w: &[f32], dx: &mut [E]) {
    let [_, sy, sx] = s.side;
    let all: Vec<usize> = (0..8).collect();
    let weights = &Packed::<O>::new(s.c_out, s.c_in, &all, |ci, co, t| w[(ci * s.c_out + co) * 8 + t]);
    let padded = weights.c_in;
    let set = Set { weights, taps: &children(s.side, padded).1, at: 0 };
    let out = Shared(dx.as_mut_ptr());
    parts(s).par_iter().with_max_len(1).for_each(|part| {
        let rows = rows_as::<E, O>(&dy[below(s, part, s.c_out)], s.c_out, padded);
        let (bases, _) = children([part.planes(), sy, sx], padded);
        let outs: Vec<u32> = (0..bases.len()).map(|v| (v * s.c_in) as u32).collect();
        let target = unsafe { out.at((part.block * s.side[0] + part.z0) * sy * sx * s.c_in) };
        unsafe { kernels::direct((&rows, false), &bases, &[set], None, target, &outs) };
    });
}

/// dw of the transposed convolution, `[c_in, c_out, 2, 2, 2]`.
pub fn grad_weight<E: Element, O: Outer>(s: &Up, x: &[E], dy: &[E], dw: &mut [f32]) {
    // [tap][c_out][c_in]
    let sums = sum_units(&parts(s), 8 * s.c_in * s.c_out, |part, sums| {
        let rows = O::lines(rows_of(s, x, part, s.c_in), s.c_in, s.side[2]);
        let (a, bases, taps) = O::children(&dy[below(s, part, s.c_out)], s.c_out, [s.side[1], s.side[2]]);
        add_outer::<O>(&Factors { a, bases, taps, rows }, s.c_out, s.c_in, sums);
    });
    put(&sums, [8, s.c_out, s.c_in], dw);
}
