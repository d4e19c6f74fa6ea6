//! Transposed convolution 2x2x2 with stride 2: every child voxel is its own 1x1x1 convolution.

use super::Up;
use super::direct::Shared;
use super::gather::{GATHERED, Lent, Part, rows_as, units};
use super::kernels::{self, Operand, Packed};
use super::weight::{Factors, Outer, add_outer, put, sum_units};
use crate::element::Element;
use crate::memory::Scratch;
use rayon::prelude::*;

/// Row offsets of the 2x2x2 children in a block of side 2b with `c` channels: (start of voxel v, per child).
fn children(s: &Up, part: &Part, c: usize) -> (Vec<u32>, [u32; 8]) {
    let [_, sy, sx] = s.side;
    let at = |z: usize, y: usize, x: usize| (((z * 2 * sy + y) * 2 * sx + x) * c) as u32;
    let voxels = part.z0 * sy * sx..part.z1 * sy * sx;
    let starts = voxels.map(|v| at(2 * (v / (sy * sx)), 2 * (v / sx % sy), 2 * (v % sx))).collect();
    (starts, std::array::from_fn(|t| at(t >> 2, t >> 1 & 1, t & 1)))
}

fn parts(s: &Up) -> Vec<Part> {
    units(s.blocks, s.side, GATHERED).into_iter().flatten().collect()
}

/// The rows of x that a part covers.
fn rows_of<'a, E>(s: &Up, x: &'a [E], part: &Part, c: usize) -> &'a [E] {
    let plane = s.side[1] * s.side[2];
    &x[(part.block * s.voxels() + part.z0 * plane) * c..][..part.planes() * plane * c]
}

/// y of the transposed convolution.
pub fn forward<E: Element, O: Operand>(s: &Up, x: &[E], w: &[f32], bias: &[f32], y: &mut [E]) {
    let packed: Vec<Packed<O>> =
        (0..8).map(|t| Packed::new(s.c_in, s.c_out, &[t], |co, ci, t| w[(ci * s.c_out + co) * 8 + t])).collect();
    let out = Shared(y.as_mut_ptr());
    parts(s).par_iter().for_each(|part| {
        let rows = rows_as::<E, O>(rows_of(s, x, part, s.c_in), s.c_in, packed[0].c_in);
        let bases: Vec<u32> = (0..rows.len() / packed[0].c_in).map(|v| (v * packed[0].c_in) as u32).collect();
        let (starts, child) = children(s, part, s.c_out);
        let target = unsafe { out.at(part.block * 8 * s.voxels() * s.c_out) };
        for (packed, child) in packed.iter().zip(child) {
            let outs: Vec<u32> = starts.iter().map(|v| v + child).collect();
            unsafe { kernels::direct(&rows, &bases, &[0], packed, Some(bias), target, &outs) };
        }
    });
}

/// dx of the transposed convolution: a 2x2x2 convolution with stride 2 over dy.
pub fn grad_input<E: Element, O: Operand>(s: &Up, dy: &[E], w: &[f32], dx: &mut [E]) {
    let taps: Vec<usize> = (0..8).collect();
    let packed = Packed::<O>::new(s.c_out, s.c_in, &taps, |ci, co, t| w[(ci * s.c_out + co) * 8 + t]);
    let out = Shared(dx.as_mut_ptr());
    let plane = s.side[1] * s.side[2];
    let fine = 8 * plane * s.c_out;
    parts(s).par_iter().for_each(|part| {
        let first = (part.block * s.side[0] + part.z0) * fine;
        let rows = rows_as::<E, O>(&dy[first..first + part.planes() * fine], s.c_out, packed.c_in);
        let here = Part { block: 0, z0: 0, z1: part.planes(), y0: 0, y1: s.side[1] };
        let (bases, child) = children(s, &here, packed.c_in);
        let outs: Vec<u32> = (0..bases.len()).map(|v| (v * s.c_in) as u32).collect();
        let target = unsafe { out.at((part.block * s.side[0] + part.z0) * plane * s.c_in) };
        unsafe { kernels::direct(&rows, &bases, &child, &packed, None, target, &outs) };
    });
}

/// dw of the transposed convolution, `[c_in, c_out, 2, 2, 2]`.
pub fn grad_weight<E: Element, O: Outer>(s: &Up, x: &[E], dy: &[E], dw: &mut [f32]) {
    // [tap][c_out][c_in]
    let sums = sum_units(&parts(s), 8 * s.c_in * s.c_out, |part, sums| {
        let rows = O::lines(rows_of(s, x, part, s.c_in), s.c_in, s.side[2]);
        let lanes = rows.len() / s.c_in;
        // The children of one kind, as rows in the order of the voxels: [tap][voxel][c_out].
        let (starts, child) = children(s, part, s.c_out);
        let fine = &dy[part.block * 8 * s.voxels() * s.c_out..];
        let mut sorted = Scratch::<E>::new(8 * starts.len() * s.c_out);
        let mut to = sorted.chunks_exact_mut(s.c_out);
        for child in child {
            for start in &starts {
                let at = (start + child) as usize;
                to.next().expect("8 children per voxel").copy_from_slice(&fine[at..at + s.c_out]);
            }
        }
        let a = O::lines(&sorted, s.c_out, s.side[2]);
        let bases = (0..lanes).map(|v| (v * s.c_out) as u32).collect();
        let taps = (0..8).map(|t| (t * lanes * s.c_out) as u32).collect();
        let a: Lent<O::Lane> = a;
        add_outer::<O>(&Factors { a, bases, taps, rows }, s.c_out, s.c_in, sums);
    });
    put(&sums, [8, s.c_out, s.c_in], dw);
}
