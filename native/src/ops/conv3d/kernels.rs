//! What direct convolutions multiply (`Operand`): f32 values, or pairs of bf16 whose products are summed in f32; weights packed
//! for it, and the loop over voxels, sets and outputs around the register tiles (`tile`).

use super::amx;
use super::direct::Shared;
use super::isa::{self, Isa, isa};
use super::winograd::{claim, soon};
use crate::element::{Dtype, Element, convert};
use crate::memory::{Plain, Scratch};
use crate::ops::amx::by_tiles;
use crate::ops::rows;
use half::bf16;
use rayon::prelude::*;

/// Voxels per register tile.
pub const M: usize = 8;
/// Most output channels per register tile.
pub const N: usize = 32;
/// Register tiles that share the weights of a few taps while those lie in the first cache.
const TILES: usize = 32;
/// Bytes of weights that stay in the first cache.
const WEIGHTS: usize = 16 << 10;

/// Sums of one register tile, `[M][N]`.
pub type Tile = [f32; M * N];

/// What the loops multiply.
pub trait Operand: Element {
    /// Channels that one multiplication takes: rows of channels are padded with zeros to a multiple of it.
    const GROUP: usize;
    /// Value (or pair of values of neighbouring voxels) that the outer product multiplies.
    type Lane: Plain + Sync + Send;

    /// `tile` for all of `bases` where tile registers take it; else false.
    ///
    /// # Safety
    /// As `tile`; `tiles` holds a row for each of `bases`, rounded up to 32.
    unsafe fn by_registers(
        _a: *const Self,
        _bases: &[u32],
        _taps: &[u32],
        _w: Weights<Self>,
        _first: Option<&[f32; N]>,
        _tiles: &mut [Tile],
    ) -> bool {
        false
    }

    /// Adds the `outer` of all taps and `c` rows i where tile registers take it; else false.
    ///
    /// # Safety
    /// As `outer`, for every tap.
    unsafe fn outer_by_registers(
        _a: &[Self::Lane],
        _bases: &[u32],
        _taps: &[u32],
        _rows: &[Self::Lane],
        _c: [usize; 2],
        _out: &Shared<f32>,
    ) -> bool {
        false
    }
}

/// Weights of some taps for one tile of `width` (16 or 32) output channels: `[tap][c / GROUP][width][GROUP]`.
#[derive(Clone, Copy)]
pub struct Weights<O> {
    pub at: *const O,
    pub c: usize,
    pub width: usize,
}

/// Weights as the loop reads them: `[tile of output channels][tap][c_in / GROUP][width][GROUP]`, zero padded.
pub struct Packed<O> {
    /// Input channels, padded.
    pub c_in: usize,
    pub c_out: usize,
    pub taps: usize,
    width: usize,
    values: Scratch<O>,
}

impl<O: Operand> Packed<O> {
    /// Packs `at(c_out, c_in, tap)` for the listed taps.
    pub fn new(c_in: usize, c_out: usize, taps: &[usize], at: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        let width = if c_out <= 16 { 16 } else { N };
        let tiles = c_out.div_ceil(width);
        let padded = c_in.next_multiple_of(O::GROUP);
        let mut values = Scratch::<O>::new(tiles * taps.len() * padded * width);
        let (groups, row) = (padded / O::GROUP, width * O::GROUP);
        let out = Shared(values.as_mut_ptr());
        // A task reads all taps of a channel while they are in the cache and writes one row per tap.
        (0..tiles * groups).into_par_iter().with_min_len(8).for_each_init(
            || vec![O::default(); taps.len() * row],
            |rows, task| {
                let (tile, group) = (task / groups, task % groups);
                for i in 0..row {
                    let (co, ci) = (tile * width + i / O::GROUP, group * O::GROUP + i % O::GROUP);
                    for (t, &tap) in taps.iter().enumerate() {
                        let value = if co < c_out && ci < c_in { at(co, ci, tap) } else { 0.0 };
                        rows[t * row + i] = O::from_f32(value);
                    }
                }
                for (t, from) in rows.chunks_exact(row).enumerate() {
                    let to = ((tile * taps.len() + t) * groups + group) * row;
                    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out.at(to), row) };
                }
            },
        );
        Packed { c_in: padded, c_out, taps: taps.len(), width, values }
    }

    /// Three taps along x, whose rows lie side by side, as one with three times the channels: where these are few, the loop over
    /// them is too short for a tap of its own.
    pub fn by_lines(self) -> Self {
        if self.c_in >= 16 { self } else { Packed { c_in: 3 * self.c_in, taps: self.taps / 3, ..self } }
    }
}

/// One set of weights of `direct`: what it reads, and where its outputs begin.
#[derive(Clone, Copy)]
pub struct Set<'a, O> {
    pub weights: &'a Packed<O>,
    /// Distances from a voxel's base to its rows of input channels.
    pub taps: &'a [u32],
    pub at: u32,
}

/// `in_cache`: a was gathered just before. For every set: out[at + outs[v] + co] = bias[co] + sum over taps t and channels k of a[bases[v] + taps[t] + k] * w[t][k][co].
///
/// # Safety
/// `out` must hold every `at + outs[v] + c_out`; `a` is checked by the caller's shapes.
pub unsafe fn direct<O: Operand, E: Element>(
    (a, in_cache): (&[O], bool),
    bases: &[u32],
    sets: &[Set<'_, O>],
    bias: Option<&[f32]>,
    out: *mut E,
    outs: &[u32],
) {
    for Set { weights, taps, .. } in sets {
        debug_assert_eq!(taps.len(), weights.taps);
        let reach = *taps.iter().max().unwrap_or(&0) as usize + weights.c_in;
        assert!(bases.iter().all(|&b| b as usize + reach <= a.len()), "convolution reads outside its scratch");
    }
    let mut tiles = Scratch::<f32>::new(TILES * M * N);
    let tiles = tiles.as_chunks_mut().0;
    // Voxels outside, sets and output channels inside: the input of some voxels is read from the second cache by every panel.
    for (bases, outs) in bases.chunks(TILES * M).zip(outs.chunks(TILES * M)) {
        for (i, set) in sets.iter().enumerate() {
            unsafe { set.some(a, bases, bias, out, outs, tiles, (!in_cache && i == 0, sets.len() > 1)) };
        }
    }
}

impl<O: Operand> Set<'_, O> {
    /// `direct` for as many voxels as `tiles` holds. `ahead`: rows are asked for a tile before they are read; `scattered`: those of the
    /// output before they are written.
    #[allow(clippy::too_many_arguments)]
    unsafe fn some<E: Element>(
        &self,
        a: &[O],
        bases: &[u32],
        bias: Option<&[f32]>,
        out: *mut E,
        outs: &[u32],
        tiles: &mut [Tile],
        (ahead, scattered): (bool, bool),
    ) {
        let w = self.weights;
        let tap_len = w.c_in * w.width;
        let step = (WEIGHTS / (tap_len * size_of::<O>())).clamp(1, self.taps.len());
        for index in 0..w.c_out.div_ceil(w.width) {
            let first = index * w.width;
            let n = (w.c_out - first).min(w.width);
            let mut start = [0f32; N];
            if let Some(bias) = bias {
                start[..n].copy_from_slice(&bias[first..first + n]);
            }
            for t in (0..self.taps.len()).step_by(step) {
                let part = &w.values[(index * self.taps.len() + t) * tap_len..];
                let weights = Weights { at: part.as_ptr(), c: w.c_in, width: w.width };
                let (taps, start) = (&self.taps[t..(t + step).min(self.taps.len())], (t == 0).then_some(&start));
                if unsafe { O::by_registers(a.as_ptr(), bases, taps, weights, start, tiles) } {
                    continue;
                }
                for (i, (tile, near)) in tiles.iter_mut().zip(bases.chunks(M)).enumerate() {
                    if ahead && index == 0 && w.c_in >= 16 {
                        let next = bases.iter().skip((i + 1) * M).take(M);
                        for at in next.flat_map(|base| taps.iter().map(move |tap| (base + tap) as usize)) {
                            let line = 64 / size_of::<O>();
                            (at..at + w.c_in).step_by(line).for_each(|k| soon(a.as_ptr().wrapping_add(k).cast()));
                        }
                    }
                    if scattered && t + step >= self.taps.len() {
                        for at in outs[i * M..].iter().take(M).map(|&at| (self.at + at) as usize + first) {
                            let line = 64 / size_of::<E>();
                            (at..at + n).step_by(line).for_each(|k| claim(out.wrapping_add(k).cast()));
                        }
                    }
                    let mut from = [near[0]; M]; // a short last tile repeats its first voxel
                    from[..near.len()].copy_from_slice(near);
                    unsafe { super::tile::tile(a.as_ptr(), &from, taps, weights, start, tile) };
                }
            }
            rows::vectorised(|| {
                for (row, &at) in tiles.as_flattened().chunks_exact(N).zip(outs) {
                    let to = unsafe { out.add(self.at as usize + at as usize + first) };
                    convert(row, unsafe { std::slice::from_raw_parts_mut(to, n) });
                }
            });
        }
    }
}

impl Operand for f32 {
    const GROUP: usize = 1;
    type Lane = f32;
}

/// Only where the processor multiplies bf16 pairs: `by_operand!` chooses.
impl Operand for bf16 {
    const GROUP: usize = 2;
    type Lane = u32;
    unsafe fn by_registers(
        a: *const bf16,
        bases: &[u32],
        taps: &[u32],
        w: Weights<bf16>,
        first: Option<&[f32; N]>,
        tiles: &mut [Tile],
    ) -> bool {
        let Some(unit) = isa::tiles().filter(|_| amx::takes(w.c, w.width)) else { return false };
        let sums = tiles.as_flattened_mut().as_chunks_mut().0;
        by_tiles!(unit, T => unsafe { amx::voxels::<T>(a, bases, taps, w, first, sums) });
        true
    }
    unsafe fn outer_by_registers(
        a: &[u32],
        bases: &[u32],
        taps: &[u32],
        rows: &[u32],
        [c, width]: [usize; 2],
        out: &Shared<f32>,
    ) -> bool {
        let Some(unit) = isa::tiles().filter(|_| amx::takes(c, width)) else { return false };
        by_tiles!(unit, T => unsafe { amx::outer::<T>(a, bases, taps, rows, [c, width], out) });
        true
    }
}

/// Whether tensors of type `E` are multiplied as bf16 pairs on this processor.
pub fn in_pairs<E: Element>() -> bool {
    E::DTYPE == Dtype::Bf16 && isa() == Isa::Avx512Bf16
}

/// Runs the body with `O`, what this processor multiplies for tensors of type `E`.
macro_rules! by_operand {
    ($E:ty, $O:ident => $body:expr) => {
        if $crate::ops::conv3d::kernels::in_pairs::<$E>() {
            type $O = half::bf16;
            $body
        } else {
            type $O = f32;
            $body
        }
    };
}
pub(super) use by_operand;
