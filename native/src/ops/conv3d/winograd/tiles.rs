//! Where the tiles lie. An output tile is 2x2x2 voxels, its input 4x4x4. A tile row is the run of tiles along x at one
//! (block, z, y): it reads 4 x 4 input rows, each given by three pointers (the voxel left of the block, the block's own
//! row, the voxel right of it), so that the halo is read in place and nothing is gathered. Absent blocks are zeros.

use crate::element::Element;
use crate::grid::Grid;

/// One input row of a block with the voxels beside it.
#[derive(Clone, Copy)]
pub struct Row<E> {
    pub left: *const E,
    pub own: *const E,
    pub right: *const E,
}

/// The 4 x 4 input rows [z][y] of a tile row, and its first output voxel.
pub struct TileRow<E> {
    pub rows: [[Row<E>; 4]; 4],
    pub voxel: usize,
}

/// All tile rows of a tensor `[block][z][y][x][c]`.
pub struct Tiles<'a> {
    pub grid: &'a Grid,
    pub side: [usize; 3],
}

impl Tiles<'_> {
    /// Tiles of one tile row.
    pub fn per_row(&self) -> usize {
        self.side[2] / 2
    }
    /// Tile rows of all blocks.
    pub fn rows(&self) -> usize {
        self.grid.blocks.len() * (self.side[0] / 2) * (self.side[1] / 2)
    }
    /// Tiles of all blocks.
    pub fn count(&self) -> usize {
        self.rows() * self.per_row()
    }
    /// Tile row `index` of a tensor with `c` channels; `zeros` holds a row of zeros.
    pub fn row<E: Element>(&self, x: *const E, c: usize, zeros: *const E, index: usize) -> TileRow<E> {
        let [sz, sy, sx] = self.side;
        let (ty, tz, block) = (index % (sy / 2), index / (sy / 2) % (sz / 2), index / (sy / 2) / (sz / 2));
        let neighbours = &self.grid.neighbours[block];
        let rows = std::array::from_fn(|i| {
            let (nz, z) = locate(2 * tz + i, sz);
            std::array::from_fn(|j| {
                let (ny, y) = locate(2 * ty + j, sy);
                let at = |nx: usize, v: usize| match neighbours[nz * 9 + ny * 3 + nx] {
                    -1 => zeros,
                    b => x.wrapping_add((((b as usize * sz + z) * sy + y) * sx + v) * c),
                };
                Row { left: at(0, sx - 1), own: at(1, 0), right: at(2, 0) }
            })
        });
        TileRow { rows, voxel: ((block * sz + 2 * tz) * sy + 2 * ty) * sx }
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
#[derive(Default)]
pub struct Ahead {
    lines: Vec<*const u8>,
    next: usize,
    step: usize,
}

impl Ahead {
    /// Planes `z` of `rows` but for their outer y rows, which neighbouring tile rows bring, spread over `calls` of `fetch`.
    pub fn new<E>(rows: &[TileRow<E>], z: &[usize], values: usize, zeros: *const E, calls: usize) -> Ahead {
        let mut lines = Vec::new();
        let planes = rows.iter().flat_map(|r| z.iter().map(|&z| &r.rows[z]));
        for row in planes.flat_map(|plane| &plane[1..3]).filter(|row| row.own != zeros) {
            lines.extend((0..values * size_of::<E>()).step_by(64).map(|b| (row.own as *const u8).wrapping_add(b)));
        }
        let step = lines.len().div_ceil(calls.max(1));
        Ahead { lines, next: 0, step }
    }
    #[inline(always)]
    pub fn fetch(&mut self) {
        let end = (self.next + self.step).min(self.lines.len());
        for &line in &self.lines[self.next..end] {
            #[cfg(target_arch = "x86_64")]
            unsafe {
                use std::arch::x86_64::*;
                _mm_prefetch::<_MM_HINT_T1>(line as *const i8);
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = line;
        }
        self.next = end;
    }
}
