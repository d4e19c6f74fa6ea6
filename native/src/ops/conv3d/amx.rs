//! The two inner loops on tile registers (`ops::amx`), for multiples of 32 channels: 32 voxels (or input channels) by 32 output
//! channels. The registers read weights as `Packed` lays them, and voxels where they lie, if 16 of them are equally far apart
//! (a line of 16 voxels is); else 16 are brought together first. It never ran on hardware here: the layout follows the
//! prototype of the reference, which reached 1.5 to 1.9 TFLOP/s a core.

use super::direct::Shared;
use super::kernels::{N, Weights};
use crate::memory::Scratch;
use crate::ops::amx::{Rows, SIDE, Sums, Tiles};
use crate::ops::linear::turn::turn;
use half::bf16;
use rayon::prelude::*;

/// Voxels of a block of sums.
const VOXELS: usize = 32;
/// Channels of a step.
const STEP: usize = 2 * SIDE;

/// Whether the loops take this many input and output channels.
pub fn takes(c_in: usize, c_out: usize) -> bool {
    c_in.is_multiple_of(STEP) && c_out.is_multiple_of(N)
}

/// `tile::tile` for many voxels: sums[v][j] = (first ? start[j] : sums[v][j]) + sum over taps t and channels k of
/// a[bases[v] + t + k] * w[t][k][j], for rows up to the next multiple of 32, which repeat a voxel.
///
/// # Safety
/// As `tile::tile` and `Tiles::begin`; `w.c` and `w.width` are multiples of 32.
pub unsafe fn voxels<T: Tiles>(
    a: *const bf16,
    bases: &[u32],
    taps: &[u32],
    w: Weights<bf16>,
    first: Option<&[f32; N]>,
    sums: &mut [[f32; N]],
) {
    let mut tiles = unsafe { Sums::<T>::begin() };
    let mut near = [[0u32; SIDE]; VOXELS];
    for (bases, sums) in bases.chunks(VOXELS).zip(sums.chunks_exact_mut(VOXELS)) {
        let from: [u32; VOXELS] = std::array::from_fn(|v| *bases.get(v).unwrap_or(&bases[0]));
        if let Some(start) = first {
            sums.fill(*start);
        }
        let stride = [0, SIDE].map(|v| distance(&from[v..v + SIDE]));
        let mut weights = w.at;
        unsafe {
            tiles.open(sums.as_ptr().cast(), N);
            for &tap in taps {
                for k in (0..w.c).step_by(STEP) {
                    let at = |v: usize| a.add((from[v] + tap) as usize + k);
                    let left = [0, SIDE].map(|v| match stride[v / SIDE] {
                        Some(apart) => Rows { at: at(v).cast(), stride: 2 * apart },
                        None => {
                            for (i, to) in near[v..v + SIDE].iter_mut().enumerate() {
                                *to = at(v + i).cast::<[u32; SIDE]>().read_unaligned();
                            }
                            Rows { at: near[v..].as_ptr().cast(), stride: 4 * SIDE }
                        }
                    });
                    tiles.step(left, Rows { at: weights.cast(), stride: 4 * N });
                    weights = weights.add(STEP * N);
                }
            }
            tiles.close(sums.as_mut_ptr().cast(), N);
        }
    }
}

/// Values from each to the next, where it is the same for all.
fn distance(from: &[u32]) -> Option<usize> {
    let apart = from[1].checked_sub(from[0])?;
    from.windows(2).all(|two| two[1].checked_sub(two[0]) == Some(apart)).then_some(apart as usize)
}

/// `add_outer` of `weight`: sums[t][i][j] += sum over v of a[bases[v] + taps[t] + i] * rows[v][j], where a value is a pair.
/// A task turns its 32 channels i of all v once and reads them with every 32 columns j.
///
/// # Safety
/// As `tile::outer` and `Tiles::begin`; `c` and `width` are multiples of 32.
pub unsafe fn outer<T: Tiles>(
    a: &[u32],
    bases: &[u32],
    taps: &[u32],
    rows: &[u32],
    [c, width]: [usize; 2],
    out: &Shared<f32>,
) {
    let steps = bases.len().div_ceil(SIDE);
    // Rows of the last step, and zeros.
    let mut last = Scratch::<u32>::zeros(SIDE * width);
    let whole = bases.len() / SIDE * SIDE;
    last[..(bases.len() - whole) * width].copy_from_slice(&rows[whole * width..bases.len() * width]);
    let strips = c / STEP;
    (0..taps.len() * strips).into_par_iter().for_each(|task| {
        let (t, i) = (task / strips, task % strips * STEP);
        let mut turned = Scratch::<u32>::new(steps * SIDE * STEP);
        for (bases, to) in bases.chunks(SIDE).zip(turned.chunks_exact_mut(SIDE * STEP)) {
            for (half, to) in to.chunks_exact_mut(SIDE * SIDE).enumerate() {
                let mut square = [[0u32; SIDE]; SIDE];
                for (row, base) in square.iter_mut().zip(bases) {
                    row.copy_from_slice(&a[(base + taps[t]) as usize + i + half * SIDE..][..SIDE]);
                }
                turn(&mut square);
                to.copy_from_slice(square.as_flattened());
            }
        }
        let mut tiles = unsafe { Sums::<T>::begin() };
        for j in (0..width).step_by(N) {
            unsafe {
                let sums = out.at((t * c + i) * width + j);
                tiles.open(sums, width);
                for step in 0..steps {
                    let from = if step * SIDE < whole { &rows[step * SIDE * width..] } else { &last };
                    let left = turned[step * SIDE * STEP..].as_ptr();
                    let side = |at: *const u32| Rows { at: at.cast(), stride: 4 * SIDE };
                    tiles.step(
                        [side(left), side(left.add(SIDE * SIDE))],
                        Rows { at: from[j..].as_ptr().cast(), stride: 4 * width },
                    );
                }
                tiles.close(sums, width);
            }
        }
    });
}
