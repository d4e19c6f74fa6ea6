//! Direct convolution: forward and the gradient of the input, with every tap a pointer offset into a gathered unit.

use super::Shape;
use super::gather::{GATHERED, IN_PLACE, extent, gathered_lines, rows_as, tap_offsets, unit_input, units, units_of};
use super::kernels::{self, Operand, Packed};
use crate::element::Element;
use crate::grid::Grid;
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
    let taps: Vec<usize> = (0..s.taps()).collect();
    let n = s.taps();
    let packed = Packed::<O>::new(s.c_in, s.c_out, &taps, |co, ci, t| w[(co * s.c_in + ci) * n + t]);
    run(s, grid, x, &packed, bias, y);
}

/// One direct convolution of shape `s` with packed weights over all units.
fn run<E: Element, O: Operand>(s: &Shape, grid: &Grid, x: &[E], packed: &Packed<O>, bias: Option<&[f32]>, y: &mut [E]) {
    let out = Shared(y.as_mut_ptr());
    let blocks = grid.blocks.len();
    let units = if s.kernel == 1 { units(blocks, s.side, IN_PLACE) } else { units_of(s, blocks) };
    units.par_iter().for_each(|unit| {
        let (first, voxels) = extent(unit, s.side);
        let outs: Vec<u32> = (0..voxels).map(|v| (v * s.c_out) as u32).collect();
        let target = unsafe { out.at(first * s.c_out) };
        if s.kernel == 1 {
            let rows = rows_as::<E, O>(&x[first * s.c_in..][..voxels * s.c_in], s.c_in, packed.c_in);
            let bases: Vec<u32> = (0..voxels).map(|v| (v * packed.c_in) as u32).collect();
            unsafe { kernels::direct(&rows, &bases, &[0], packed, bias, target, &outs) };
        } else {
            let (input, bases) = unit_input::<E, O>(s, grid, x, unit);
            let taps = tap_offsets(gathered_lines(s, unit), s.side[2] * s.stride + 2, packed.c_in);
            unsafe { kernels::direct(&input, &bases, &taps, packed, bias, target, &outs) };
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
        return run(&back, grid, dy, &packed, None, dx);
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
    let out = Shared(dx.as_mut_ptr());
    let [_, sy, sx] = s.side;
    units(grid.blocks.len(), s.side, GATHERED).par_iter().for_each(|unit| {
        let (input, bases) = unit_input::<E, O>(&back, grid, dy, unit);
        let target = unsafe { out.at(unit[0].block * s.in_voxels() * s.c_in) };
        for (p, (packed, offsets)) in classes.iter().enumerate() {
            let mut outs = Vec::with_capacity(bases.len());
            for part in unit {
                for z in part.z0..part.z1 {
                    for v in 0..sy * sx {
                        let (z, y, x) = (2 * z + (p >> 2), 2 * (v / sx) + (p >> 1 & 1), 2 * (v % sx) + (p & 1));
                        let block = (part.block - unit[0].block) * s.in_voxels();
                        outs.push(((block + (z * 2 * sy + y) * 2 * sx + x) * s.c_in) as u32);
                    }
                }
            }
            unsafe { kernels::direct(&input, &bases, offsets, packed, None, target, &outs) };
        }
    });
}
