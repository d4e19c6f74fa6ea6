//! Weight gradient of 3x3x3 convolutions on Hopper's wgmma: the contract of `conv3d`, on the GPU alone. On and off with
//! `conv3d_stacked`.

use super::conv3d::Shape;
use super::conv3d::launch::fold_taps;
use super::conv3d_stacked;
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, Value};
use crate::grid::Grid;
use crate::launch;
use crate::tensor::Buffer;

/// Channels of `own` of a block, planes of it that are held: as in kernel.cu.
const OWN: usize = 64;
const SLOTS: usize = 4;
/// Voxels of a plane of a tile, and bytes of shared memory, by the channels of `around` that a block takes.
const VOXELS: usize = 128;
const SHARED: [(usize, usize); 2] = [(64, 163840), (32, 116736)];
/// Blocks that fill a card, about; fixed, so that the bits do not depend on the card.
const BLOCKS: usize = 264;

/// `Planes` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Planes {
    blocks: i32,
    side: [i32; 3],
    tile: [i32; 2],
    parts: i32,
    width: i32,
    own: i32,
    around: i32,
}
impl Value for Planes {}

/// Rows, columns and blocks of a tile, and the width of a row in shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tiling {
    tile: [usize; 2],
    parts: usize,
    width: usize,
    tiles: usize,
    bytes: usize,
}

/// The tiling that costs least: clocks of products, and half a clock for each 16 bytes that are loaded; 300 for each plane.
fn tiling(blocks: usize, side: [usize; 3], (columns, limit): (usize, usize)) -> Tiling {
    let mut best = (usize::MAX, None);
    for across in 1..=side[2].min(32) {
        for parts in 1..=blocks.min(VOXELS / across) {
            for down in 1..=side[1].min(VOXELS / 8) {
                let width = (parts * across).next_multiple_of(if down % 2 == 0 { 8 } else { 16 });
                let (voxels, staged) = (down * width, (down + 2) * width);
                let around = (down + 2) * columns * (width + 1);
                let bytes = 2 * (SLOTS * OWN * (voxels + 1) + 2 * around) + 4 * staged;
                if voxels > VOXELS || bytes > limit {
                    break;
                }
                let tiles = blocks.div_ceil(parts) * side[1].div_ceil(down) * side[2].div_ceil(across);
                let loads = (voxels * OWN + staged * columns) / 16;
                let cost = tiles * (side[0] * voxels * columns * 9 / 32 + (side[0] + 2) * (loads + 300));
                if cost < best.0 {
                    best = (cost, Some(Tiling { tile: [down, across], parts, width, tiles, bytes }));
                }
            }
        }
    }
    best.1.expect("one column of one block fits")
}

/// Clocks, about, of all blocks for a tile: own channels by those of `around`, in the two ways to cut the latter.
fn clocks(own: usize, around: usize, columns: usize) -> usize {
    own.div_ceil(OWN) * (3 * around).div_ceil(columns) * columns
}

/// Whether the kernel computes the weight gradient of a convolution.
pub fn takes(s: &Shape, dtype: Dtype) -> bool {
    let fits = |c: usize| c >= 32 && c.is_multiple_of(8);
    conv3d_stacked::on() && (s.kernel, s.stride) == (3, 1) && dtype == Dtype::Bf16 && fits(s.c_in) && fits(s.c_out)
}

/// As `conv3d::launch::grad_weight`.
pub fn gradient(s: &Shape, grid: &Grid, x: &Buffer, dy: &Buffer, dw: &Buffer) -> Result<()> {
    // Either of x and dy may be `own`, which is best in multiples of 64 channels; wide blocks load less.
    let ways = [false, true].into_iter().flat_map(|exchanged| SHARED.map(|cut| (exchanged, cut)));
    let channels = |exchanged| if exchanged { [s.c_in, s.c_out] } else { [s.c_out, s.c_in] };
    let of = |&(exchanged, cut): &(bool, (usize, usize))| {
        let [own, around] = channels(exchanged);
        clocks(own, around, cut.0)
    };
    let (exchanged, cut) = ways.min_by_key(of).expect("four ways");
    let [own, around] = channels(exchanged);
    let Tiling { tile, parts, width, tiles, bytes } = tiling(grid.blocks.len(), s.side, cut);
    let cuts = [(3 * around).div_ceil(cut.0), own.div_ceil(OWN)];
    let splits = tiles.min((BLOCKS / (cuts[0] * cuts[1])).max(1));
    let partial = gpu::scratch::<f32>(splits * dw.len);
    let shape = Planes {
        blocks: grid.blocks.len() as i32,
        side: s.side.map(|v| v as i32),
        tile: tile.map(|v| v as i32),
        parts: parts as i32,
        width: width as i32,
        own: own as i32,
        around: around as i32,
    };
    let (of_own, of_around) = if exchanged { (x.device(), dy.device()) } else { (dy.device(), x.device()) };
    let kernel = if cut.0 == 64 { "conv3d_weight_planes_64" } else { "conv3d_weight_planes_32" };
    let neighbours = grid.neighbours_on_card();
    launch!(kernel, [splits, cuts[0], cuts[1]], 384, bytes, shape, of_own, of_around, neighbours, partial.at())?;
    fold_taps([own, around], exchanged, partial.at(), splits, dw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plane_is_of_whole_products_and_fits() {
        for cut in SHARED {
            for (blocks, side) in
                [(1, [1, 1, 1]), (500, [1, 1, 1]), (6, [5, 5, 5]), (2, [3, 7, 50]), (2, [160, 160, 160])]
            {
                let Tiling { tile, parts, width, tiles, bytes } = tiling(blocks, side, cut);
                assert!(
                    tile[0] * width % 16 == 0
                        && tile[0] * width <= VOXELS
                        && bytes <= cut.1
                        && parts * tile[1] <= width
                );
                let [down, across] = [side[1].div_ceil(tile[0]), side[2].div_ceil(tile[1])];
                assert_eq!(tiles, blocks.div_ceil(parts) * down * across);
            }
        }
    }

    #[test]
    fn at_the_stages_of_resenc_l_few_of_the_multiplied_voxels_are_padding() {
        for (side, share) in [(160, 0.99), (80, 0.99), (40, 0.99), (20, 0.99), (10, 0.9), (5, 0.9)] {
            let Tiling { tile, width, tiles, .. } = tiling(6, [side; 3], SHARED[0]);
            let used = (6 * side * side) as f64 / (tiles * tile[0] * width) as f64;
            assert!(used >= share, "side {side}: {used}, {tile:?}");
        }
    }
}
