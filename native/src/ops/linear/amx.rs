//! The inner loop of the linear layers on tile registers (`ops::amx`): 32 rows by 32 columns. Panels of the right factor are
//! those of the other loops, `[panel][lane][32]`, a lane being a pair of bf16; 16 lanes of the left factor are turned, so
//! that their 32 rows stand as rows of registers. Lanes are padded with zeros to a multiple of 16.

use super::kernel::{N, Tile};
use super::turn::turn;
use crate::ops::amx::{Amx, Rows, SIDE, Sums, Tiles, by_tiles};

/// Rows of the tile.
pub const M: usize = 32;
const BYTES: usize = 4 * N;

/// The tile, as `kernel::tile` gives it for other instructions; `lanes` a multiple of 16, the left factor turned.
pub fn tile(amx: Amx) -> Tile {
    by_tiles!(amx, T => multiply::<T>)
}

unsafe fn multiply<T: Tiles>(a: *const u32, b: *const u32, lanes: usize, sums: *mut f32, add: bool) {
    unsafe {
        let mut tiles = Sums::<T>::begin();
        if add {
            tiles.open(sums, N);
        }
        for lane in (0..lanes).step_by(SIDE) {
            let (left, right) = (a.add(lane * M), b.add(lane * N));
            let rows = |at: *const u32| Rows { at: at as *const u8, stride: BYTES };
            tiles.step([rows(left), rows(left.add(SIDE))], rows(right));
        }
        tiles.close(sums, N);
    }
}

/// Turns the 16 lanes of each 16 rows of packed panels of 32.
pub fn turn_panels(packed: &mut [u32]) {
    for block in packed.chunks_exact_mut(SIDE * M) {
        for first in [0, SIDE] {
            let mut square: [[u32; SIDE]; SIDE] =
                std::array::from_fn(|k| std::array::from_fn(|i| block[k * M + first + i]));
            turn(&mut square);
            for (to, from) in block.chunks_exact_mut(M).zip(&square) {
                to[first..first + SIDE].copy_from_slice(from);
            }
        }
    }
}
