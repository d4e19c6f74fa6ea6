//! Where the tiles lie. An output tile is 2xTxT voxels, T = 2 or 4, its input two more each way. A tile row is the run of
//! tiles along x at one (block, z, y): it reads 4 x (T + 2) input rows, each given by three pointers (the voxel left of the block, the block's own
//! row, the voxel right of it), so that the halo is read in place and nothing is gathered. Absent blocks are zeros.

use super::axis::MOST;
use crate::element::Element;
use crate::grid::Grid;

/// One input row of a block with the voxels beside it.
#[derive(Clone, Copy)]
pub struct Row<E> {
    pub left: *const E,
    pub own: *const E,
    pub right: *const E,
}

/// A tensor `[voxel][c]`, or two that lie joined on channels; the first of two has a multiple of 16, so that no vector holds
/// channels of both.
#[derive(Clone, Copy)]
pub struct Parts<T> {
    pub of: [T; 2],
    /// Channels of each; the second of one tensor has none.
    pub c: [usize; 2],
}

impl<T> Parts<T> {
    /// Channels of both.
    pub fn channels(&self) -> usize {
        self.c[0] + self.c[1]
    }
    /// Which part a channel lies in, and its place there.
    #[inline(always)]
    pub fn find(&self, channel: usize) -> (usize, usize) {
        let second = channel >= self.c[0];
        (second as usize, if second { channel - self.c[0] } else { channel })
    }
}

impl<'a, E> Parts<&'a [E]> {
    pub fn one(x: &'a [E], c: usize) -> Self {
        Parts { of: [x, &[]], c: [c, 0] }
    }
    /// Where they lie, checked to hold `voxels` voxels.
    pub fn at(&self, voxels: usize) -> Parts<*const E> {
        assert!(
            (0..2).all(|p| self.of[p].len() == voxels * self.c[p]) && (self.c[1] == 0 || self.c[0].is_multiple_of(16))
        );
        Parts { of: self.of.map(|x| x.as_ptr()), c: self.c }
    }
}

impl<'a, E> Parts<&'a mut [E]> {
    pub fn one_mut(y: &'a mut [E], c: usize) -> Self {
        Parts { of: [y, &mut []], c: [c, 0] }
    }
    /// As `at`, for writing.
    pub fn at_mut(self, voxels: usize) -> Parts<*mut E> {
        assert!(
            (0..2).all(|p| self.of[p].len() == voxels * self.c[p]) && (self.c[1] == 0 || self.c[0].is_multiple_of(16))
        );
        Parts { of: self.of.map(|y| y.as_mut_ptr()), c: self.c }
    }
}

/// The 4 x (T + 2) input rows [z][y] of a tile row in each part, and its first output voxel.
pub struct TileRow<E> {
    pub rows: [[[Row<E>; MOST]; 4]; 2],
    pub voxel: usize,
}

/// All tile rows of a tensor `[block][z][y][x][c]`.
#[derive(Clone, Copy)]
pub struct Tiles<'a, const T: usize> {
    pub grid: &'a Grid,
    pub side: [usize; 3],
    /// The input lies in whole volumes `[sample][z][y][x][c]`, of which the grid lists the blocks to compute.
    pub volumes: bool,
}

impl<'a, const T: usize> Tiles<'a, T> {
    /// The same in tiles of side `U`.
    pub fn of<const U: usize>(&self) -> Tiles<'a, U> {
        Tiles { grid: self.grid, side: self.side, volumes: self.volumes }
    }
    /// Tiles of one tile row.
    pub fn per_row(&self) -> usize {
        self.side[2] / T
    }
    /// Tile rows of all blocks.
    pub fn rows(&self) -> usize {
        self.grid.blocks.len() * (self.side[0] / 2) * (self.side[1] / T)
    }
    /// Tiles of all blocks.
    pub fn count(&self) -> usize {
        self.rows() * self.per_row()
    }
    /// Voxels of the input.
    pub fn input_voxels(&self) -> usize {
        let blocks = if self.volumes {
            self.grid.samples * self.grid.dims.iter().product::<usize>()
        } else {
            self.grid.blocks.len()
        };
        blocks * self.side.iter().product::<usize>()
    }
    /// Block of tile row `index`, and its place along z and y.
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let [z, y] = [self.side[0] / 2, self.side[1] / T];
        (index / y / z, index / y % z, index % y)
    }
    /// First output voxel of tile row `index`.
    pub fn voxel(&self, index: usize) -> usize {
        let [sz, sy, sx] = self.side;
        let (block, tz, ty) = self.place(index);
        ((block * sz + 2 * tz) * sy + T * ty) * sx
    }
    /// First voxels of the output rows of a tile row that begins at `voxel`.
    pub fn output_rows(&self, voxel: usize) -> impl Iterator<Item = usize> {
        let [_, sy, sx] = self.side;
        (0..2 * T).map(move |row| voxel + (row / T * sy + row % T) * sx)
    }
    /// Tile row `index`; `zeros` holds a row of zeros.
    pub fn row<E: Element>(&self, x: &Parts<*const E>, zeros: *const E, index: usize) -> TileRow<E> {
        let absent = [[Row { left: zeros, own: zeros, right: zeros }; MOST]; 4];
        let rows = [0, 1].map(|p| if x.c[p] > 0 { self.rows_of(x.of[p], x.c[p], zeros, index) } else { absent });
        TileRow { rows, voxel: self.voxel(index) }
    }
    /// The same of one tensor with `c` channels.
    fn rows_of<E: Element>(&self, x: *const E, c: usize, zeros: *const E, index: usize) -> [[Row<E>; MOST]; 4] {
        let [sz, sy, sx] = self.side;
        let (block, tz, ty) = self.place(index);
        let at = |voxel: usize| x.wrapping_add(voxel * c);
        let in_blocks = |i: usize, j: usize| {
            let ((nz, z), (ny, y)) = (locate(2 * tz + i, sz), locate(T * ty + j, sy));
            let voxel = |nx: usize, v: usize| match self.grid.neighbours[block][nz * 9 + ny * 3 + nx] {
                -1 => zeros,
                b => at(((b as usize * sz + z) * sy + y) * sx + v),
            };
            Row { left: voxel(0, sx - 1), own: voxel(1, 0), right: voxel(2, 0) }
        };
        let [n, bz, by, bx] = self.grid.blocks[block].map(|v| v as usize);
        let [vz, vy, vx] = [0, 1, 2].map(|a| self.grid.dims[a] * self.side[a]);
        let in_volumes = |i: usize, j: usize| {
            let (z, y, x) = (bz * sz + 2 * tz + i, by * sy + T * ty + j, bx * sx); // z and y one too high
            if !(1..=vz).contains(&z) || !(1..=vy).contains(&y) {
                return Row { left: zeros, own: zeros, right: zeros };
            }
            let own = ((n * vz + z - 1) * vy + y - 1) * vx + x;
            let left = if x > 0 { at(own - 1) } else { zeros };
            Row { left, own: at(own), right: if x + sx < vx { at(own + sx) } else { zeros } }
        };
        let row = |i: usize, j: usize| match self.volumes {
            _ if j >= T + 2 => Row { left: zeros, own: zeros, right: zeros },
            true => in_volumes(i, j),
            false => in_blocks(i, j),
        };
        std::array::from_fn(|i| std::array::from_fn(|j| row(i, j)))
    }
}

/// Position `p - 1` on an axis of `side` voxels, which may lie one voxel outside: (neighbour 0..3, voxel in its block).
fn locate(p: usize, side: usize) -> (usize, usize) {
    match p {
        0 => (0, side - 1),
        p if p > side => (2, 0),
        p => (1, p - 1),
    }
}

/// Rows to fetch into the L2 cache while products run. Tile rows are short and jump between planes, so the processor
/// finds their pattern too late; worth a tenth where tensors exceed the caches.
pub struct Ahead {
    lines: Vec<*const u8>,
    next: usize,
    calls: usize,
    /// Lines per call.
    step: usize,
}

impl Ahead {
    /// Planes `z` of `rows` but for their outer y rows, which neighbouring tile rows bring, spread over `calls` of `fetch`.
    /// A row has `voxels` voxels of `c` channels in each part.
    pub fn new<E, const T: usize>(
        rows: &[TileRow<E>],
        z: &[usize],
        (voxels, c): (usize, [usize; 2]),
        zeros: *const E,
        calls: usize,
    ) -> Ahead {
        let mut lines = Vec::new();
        let planes = rows.iter().flat_map(|r| z.iter().flat_map(|&z| [0, 1].map(|p| (&r.rows[p][z], c[p]))));
        for (plane, c) in planes {
            for row in plane[1..T + 1].iter().filter(|row| row.own != zeros) {
                let bytes = voxels * c * size_of::<E>();
                lines.extend((0..bytes).step_by(64).map(|b| (row.own as *const u8).wrapping_add(b)));
            }
        }
        let calls = calls.max(1);
        Ahead { step: lines.len().div_ceil(calls), lines, next: 0, calls }
    }
    /// `n` runs of `values` values, `stride` apart, as well.
    pub fn and<E>(&mut self, from: *const E, n: usize, values: usize, stride: usize) {
        for i in 0..n {
            let row = from.wrapping_add(i * stride) as *const u8;
            self.lines.extend((0..values * size_of::<E>()).step_by(64).map(|b| row.wrapping_add(b)));
        }
        self.step = self.lines.len().div_ceil(self.calls);
    }
    #[inline(always)]
    pub fn fetch(&mut self) {
        let end = (self.next + self.step).min(self.lines.len());
        self.lines[self.next..end].iter().for_each(|line| into_l2(*line));
        self.next = end;
    }
}

/// Asks for a cache line that will be written whole: 64 streams of writes are too many for the processor to foresee.
#[inline(always)]
pub fn claim(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::*;
        _mm_prefetch::<_MM_HINT_ET0>(line as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Asks for a cache line that will be read, but not at once.
#[inline(always)]
pub fn into_l2(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::*;
        _mm_prefetch::<_MM_HINT_T1>(line as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Asks for a cache line that will be read.
#[inline(always)]
pub fn soon(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::*;
        _mm_prefetch::<_MM_HINT_T0>(line as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
