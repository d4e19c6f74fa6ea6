//! Direct convolution: forward and the gradient of the input, with every tap a pointer offset into a gathered unit.

use super::Shape;
use super::gather::{
    GATHERED, IN_PLACE, Part, children, extent, gathered_lines, rows_as, tap_offsets, unit_input, units, units_of,
};
use super::kernels::{self, Operand, Packed, Set};
use crate::element::Element;
use crate::grid::Grid;
use crate::wide;
use rayon::prelude::*;

/// A pointer that tasks may share because they write disjoint places.
#[derive(Clone, Copy)]
pub struct Shared<E>(pub *mut E);
unsafe impl<E> Send for Shared<E> {}
unsafe impl<E> Sync for Shared<E> {}
impl<E> Shared<E> {
    /// # Safety
    /// `offset` lies inside what the pointer points to.
    pub unsafe fn at(&self, offset: usize) -> *mut E {
        unsafe { self.0.add(offset) }
    }
}

/// y = conv(x) + bias.
pub fn forward<E: Element, O: Operand>(s: &Shape, grid: &Grid, x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    let n = s.taps();
    if n == 1 && s.c_out <= FEW {
        let rows = 1024;
        return y
            .par_chunks_mut(rows * s.c_out)
            .zip(x.par_chunks(rows * s.c_in))
            .for_each(|(y, x)| dots(x, s.c_in, w, bias, y));
    }
    let taps: Vec<usize> = (0..n).collect();
    let packed = Packed::<O>::new(s.c_in, s.c_out, &taps, |co, ci, t| w[(co * s.c_in + ci) * n + t]);
    run(s, grid, x, packed, bias, y);
}

/// Most output channels of a 1x1x1 convolution that are one dot product each: a vector of outputs would be mostly empty (32 to 1
/// channels at 96^3, two cores, in f32 9.5 ms in that way, 3.0 in this; dw by rows of x in place of dy 10.1 and 3.9).
const FEW: usize = 4;

wide! {
    /// y[v][j] = bias[j] + sum over i of x[v][i] * w[j][i].
    fn dots<E: Element>(x: &[E], c: usize, w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
        let outputs = w.len() / c;
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(outputs)) {
            for (j, (w, y)) in w.chunks_exact(c).zip(y).enumerate() {
                let ((x, x_rest), (w, w_rest)) = (x.as_chunks::<16>(), w.as_chunks::<16>());
                let mut sums = [0f32; 16];
                for (x, w) in x.iter().zip(w) {
                    for i in 0..16 {
                        sums[i] += x[i].to_f32() * w[i];
                    }
                }
                let rest = x_rest.iter().zip(w_rest).map(|(x, w)| x.to_f32() * w);
                *y = E::from_f32(bias.map_or(0.0, |bias| bias[j]) + sums.iter().sum::<f32>() + rest.sum::<f32>());
            }
        }
    }
}

/// One direct convolution of shape `s` with packed weights over all units.
fn run<E: Element, O: Operand>(s: &Shape, grid: &Grid, x: &[E], weights: Packed<O>, bias: Option<&[f32]>, y: &mut [E]) {
    let padded = weights.c_in;
    let weights = &if s.kernel == 3 { weights.by_lines() } else { weights };
    let out = Shared(y.as_mut_ptr());
    let blocks = grid.blocks.len();
    let units = if s.kernel == 1 { units(blocks, s.side, IN_PLACE) } else { units_of(s, blocks) };
    units.par_iter().with_max_len(1).for_each(|unit| {
        let (first, voxels) = extent(unit, s.side);
        let outs: Vec<u32> = (0..voxels).map(|v| (v * s.c_out) as u32).collect();
        let target = unsafe { out.at(first * s.c_out) };
        if s.kernel == 1 {
            let rows = rows_as::<E, O>(&x[first * s.c_in..][..voxels * s.c_in], s.c_in, padded);
            let bases: Vec<u32> = (0..voxels).map(|v| (v * padded) as u32).collect();
            unsafe {
                kernels::direct((&rows, false), &bases, &[Set { weights, taps: &[0], at: 0 }], bias, target, &outs)
            };
        } else {
            let (input, bases) = unit_input::<E, O>(s, grid, x, unit);
            let taps = tap_offsets(gathered_lines(s, unit), s.side[2] * s.stride + 2, padded);
            let taps: Vec<u32> = taps.into_iter().step_by(27 / weights.taps).collect();
            unsafe {
                kernels::direct((&input, true), &bases, &[Set { weights, taps: &taps, at: 0 }], bias, target, &outs)
            };
        }
    });
}

/// dx from dy: stride 1 is the forward loop with flipped weights; stride 2 is one such loop per parity of the input
/// voxel, each with the taps that reach it.
pub fn grad_input<E: Element, O: Operand>(s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: &mut [E]) {
    let n = s.taps();
    let back = Shape { side: s.side, c_in: s.c_out, c_out: s.c_in, kernel: s.kernel, stride: 1 };
    if s.stride == 1 {
        let taps: Vec<usize> = (0..n).collect();
        let packed = Packed::<O>::new(s.c_out, s.c_in, &taps, |ci, co, t| w[(co * s.c_in + ci) * n + n - 1 - t]);
        return run(&back, grid, dy, packed, None, dx);
    }
    // Per axis and parity: (tap, offset of the output voxel in the halo scratch).
    const REACH: [&[(usize, usize)]; 2] = [&[(1, 1)], &[(0, 2), (2, 1)]];
    let (wy, wx) = (s.side[1] + 2, s.side[2] + 2);
    let padded = s.c_out.next_multiple_of(O::GROUP);
    let classes: Vec<(Packed<O>, Vec<u32>)> = (0..8)
        .map(|p| {
            let (mut taps, mut offsets) = (Vec::new(), Vec::new());
            for &(tz, oz) in REACH[p >> 2] {
                for &(ty, oy) in REACH[p >> 1 & 1] {
                    for &(tx, ox) in REACH[p & 1] {
                        taps.push(tz * 9 + ty * 3 + tx);
                        offsets.push((((oz * wy + oy) * wx + ox) * padded) as u32);
                    }
                }
            }
            (Packed::new(s.c_out, s.c_in, &taps, |ci, co, t| w[(co * s.c_in + ci) * n + t]), offsets)
        })
        .collect();
    let fine = |part: &Part, plane: usize| (part.block * s.in_voxels() + plane * 8 * s.side[1] * s.side[2]) * s.c_in;
    let places = children(s.side, s.c_in).1;
    let sets: Vec<Set<O>> = classes.iter().zip(places).map(|((weights, taps), at)| Set { weights, taps, at }).collect();
    let out = Shared(dx.as_mut_ptr());
    units(grid.blocks.len(), s.side, GATHERED).par_iter().with_max_len(1).for_each(|unit| {
        let (input, bases) = unit_input::<E, O>(&back, grid, dy, unit);
        let first = fine(&unit[0], unit[0].z0);
        let mut outs = Vec::with_capacity(bases.len());
        for part in unit {
            let start = (fine(part, part.z0) - first) as u32;
            let (voxels, _) = children([part.planes(), s.side[1], s.side[2]], s.c_in);
            outs.extend(voxels.iter().map(|v| start + v));
        }
        unsafe { kernels::direct((&input, true), &bases, &sets, None, out.at(first), &outs) };
    });
}
