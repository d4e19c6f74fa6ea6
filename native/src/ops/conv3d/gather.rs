//! What the loops read: units of work, and their input with a halo gathered into scratch that fits the L2 cache.

use super::Shape;
use super::kernels::Operand;
use crate::element::{Element, convert};
use crate::grid::Grid;
use crate::memory::Scratch;
use crate::ops::rows;
use std::ops::Deref;

/// Voxels of a unit whose input is gathered with a halo.
pub const GATHERED: usize = 4096;
/// Voxels of a unit that is read in place: smaller, so that short matrices still feed all cores.
pub const IN_PLACE: usize = 512;

/// Lines `y0..y1` of planes `z0..z1` of one block: whole planes, or some lines of one plane, so that its voxels are
/// neighbours in memory.
#[derive(Clone, Copy)]
pub struct Part {
    pub block: usize,
    pub z0: usize,
    pub z1: usize,
    pub y0: usize,
    pub y1: usize,
}

impl Part {
    pub fn planes(&self) -> usize {
        self.z1 - self.z0
    }
    pub fn lines(&self) -> usize {
        self.y1 - self.y0
    }
}

/// Splits all blocks of side `side` into units of about `voxels` voxels.
pub fn units(blocks: usize, side: [usize; 3], voxels: usize) -> Vec<Vec<Part>> {
    let plane = side[1] * side[2];
    let planes = (voxels / plane).clamp(1, side[0]).max(2.min(side[0]));
    let mut list: Vec<Vec<Part>> = Vec::new();
    let mut filled = usize::MAX;
    for block in 0..blocks {
        for z0 in (0..side[0]).step_by(planes) {
            let part = Part { block, z0, z1: (z0 + planes).min(side[0]), y0: 0, y1: side[1] };
            if filled.saturating_add(part.planes() * plane) > voxels / 4 {
                list.push(Vec::new());
                filled = 0;
            }
            filled += part.planes() * plane;
            list.last_mut().expect("pushed above").push(part);
        }
    }
    list
}

/// The same for output of stride 2, whose input is eight times larger: planes that are too large are cut along y.
pub fn units_of(s: &Shape, blocks: usize) -> Vec<Vec<Part>> {
    let (plane, voxels) = (s.side[1] * s.side[2], GATHERED / (s.stride * s.stride));
    if s.stride == 1 || plane <= voxels {
        return units(blocks, s.side, voxels);
    }
    let lines = (voxels / s.side[2]).max(1);
    let planes = (0..blocks).flat_map(|block| (0..s.side[0]).map(move |z| (block, z)));
    let cut = |(block, z0)| {
        let first = (0..s.side[1]).step_by(lines);
        first.map(move |y0| vec![Part { block, z0, z1: z0 + 1, y0, y1: (y0 + lines).min(s.side[1]) }])
    };
    planes.flat_map(cut).collect()
}

/// Voxels of a unit, and the first of them in the whole tensor, for blocks of side `side`.
pub fn extent(unit: &[Part], side: [usize; 3]) -> (usize, usize) {
    let first = ((unit[0].block * side[0] + unit[0].z0) * side[1] + unit[0].y0) * side[2];
    (first, unit.iter().map(|p| p.planes() * p.lines() * side[2]).sum())
}

/// Lines of a plane of a unit's gathered input.
pub fn gathered_lines(s: &Shape, unit: &[Part]) -> usize {
    unit[0].lines() * s.stride + 2
}

/// Values read where they lie, or converted into scratch.
pub enum Lent<'a, T> {
    Here(&'a [T]),
    Copied(Scratch<T>),
}

impl<T: crate::memory::Plain> Deref for Lent<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Lent::Here(values) => values,
            Lent::Copied(values) => values,
        }
    }
}

/// Rows of `c` stored values as rows of `padded` operands, the rest zeros; in place where nothing changes.
pub fn rows_as<'a, E: Element, O: Element>(x: &'a [E], c: usize, padded: usize) -> Lent<'a, O> {
    if E::DTYPE == O::DTYPE && c == padded {
        return Lent::Here(unsafe { std::slice::from_raw_parts(x.as_ptr() as *const O, x.len()) });
    }
    let mut out = Scratch::<O>::new(x.len() / c * padded);
    rows::vectorised(|| {
        for (to, from) in out.chunks_exact_mut(padded).zip(x.chunks_exact(c)) {
            put(from, c, to);
        }
    });
    Lent::Copied(out)
}

/// Rows of `c` values into rows of as many or more, which end in zeros.
#[inline(always)]
fn put<E: Element, O: Element>(from: &[E], c: usize, to: &mut [O]) {
    let voxels = from.len() / c;
    let padded = to.len() / voxels;
    if padded == c {
        return convert(from, to);
    }
    for (to, from) in to.chunks_exact_mut(padded).zip(from.chunks_exact(c)) {
        convert(from, to);
        to[c..].fill(O::default());
    }
}

/// The input of a convolution: blocks of side `side` with `c` channels, read with `padded` channels.
pub struct Input<'a, E> {
    pub x: &'a [E],
    pub grid: &'a Grid,
    pub side: [usize; 3],
    pub c: usize,
    pub padded: usize,
}

impl<E: Element> Input<'_, E> {
    /// One line along x with a one-voxel halo; `z`, `y` may lie one voxel outside the block. Absent blocks are zero.
    #[inline(always)]
    pub fn line<O: Element>(&self, block: usize, z: i64, y: i64, line: &mut [O]) {
        let ([sz, sy, sx], c, padded) = (self.side, self.c, self.padded);
        let axis = |p: i64, s: usize| -> (usize, usize) {
            match p {
                -1 => (0, s - 1),
                p if p == s as i64 => (2, 0),
                p => (1, p as usize),
            }
        };
        let ((nz, z), (ny, y)) = (axis(z, sz), axis(y, sy));
        let mut fill = |nx: usize, at: usize, from: usize, n: usize| {
            let to = &mut line[at * padded..(at + n) * padded];
            match self.grid.neighbours[block][nz * 9 + ny * 3 + nx] {
                -1 => to.fill(O::default()),
                b => {
                    let start = (((b as usize * sz + z) * sy + y) * sx + from) * c;
                    put(&self.x[start..start + n * c], c, to);
                }
            }
        };
        fill(0, 0, sx - 1, 1);
        fill(1, 1, 0, sx);
        fill(2, sx + 1, 0, 1);
    }
}

/// The input of a unit with its halo, `[part][z][y][x][padded]`, and where each output voxel's taps start.
pub fn unit_input<E: Element, O: Operand>(s: &Shape, grid: &Grid, x: &[E], unit: &[Part]) -> (Scratch<O>, Vec<u32>) {
    let side = s.side.map(|v| v * s.stride);
    let padded = s.c_in.next_multiple_of(O::GROUP);
    let input = Input { x, grid, side, c: s.c_in, padded };
    let (wy, wx) = (gathered_lines(s, unit), side[2] + 2);
    let lines = |p: &Part| ((p.planes() - 1) * s.stride + 3) * wy;
    let mut scratch = Scratch::<O>::new(unit.iter().map(lines).sum::<usize>() * wx * padded);
    let mut bases = Vec::with_capacity(extent(unit, s.side).1);
    let mut at = 0;
    for part in unit {
        let len = lines(part) * wx * padded;
        let (z0, y0) = ((part.z0 * s.stride) as i64 - 1, (part.y0 * s.stride) as i64 - 1);
        rows::vectorised(|| {
            for (i, line) in scratch[at..at + len].chunks_exact_mut(wx * padded).enumerate() {
                input.line(part.block, z0 + (i / wy) as i64, y0 + (i % wy) as i64, line);
            }
        });
        for z in 0..part.planes() {
            for y in 0..part.lines() {
                let line = at + (z * wy + y) * s.stride * wx * padded;
                bases.extend((0..s.side[2]).map(|v| (line + v * s.stride * padded) as u32));
            }
        }
        at += len;
    }
    (scratch, bases)
}

/// Offsets of the 27 taps in lines of `wx` voxels and planes of `wy` lines.
pub fn tap_offsets(wy: usize, wx: usize, c: usize) -> Vec<u32> {
    (0..27).map(|t| (((t / 9 * wy + t / 3 % 3) * wx + t % 3) * c) as u32).collect()
}

/// Places of the 2x2x2 children in a map of twice the side with `c` channels: the first one of every voxel of `side`, and
/// all eight from there.
pub fn children([sz, sy, sx]: [usize; 3], c: usize) -> (Vec<u32>, [u32; 8]) {
    let at = |z: usize, y: usize, x: usize| (((z * 2 * sy + y) * 2 * sx + x) * c) as u32;
    let voxels = 0..sz * sy * sx;
    let first = voxels.map(|v| at(2 * (v / (sy * sx)), 2 * (v / sx % sy), 2 * (v % sx))).collect();
    (first, std::array::from_fn(|t| at(t >> 2, t >> 1 & 1, t & 1)))
}
