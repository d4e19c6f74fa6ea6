//! Grids: which blocks of a batch of volumes exist. A masked volume lists its visible blocks only; a dense one is the
//! special case of one block as large as the volume. The same grid serves every stage, the block side halves.

use crate::abi::Result;
use crate::gpu::{self, At, Piece};
use crate::tensor::Slots;
use std::sync::{Arc, Mutex, OnceLock};

/// Visible blocks of `samples` volumes of `dims` blocks each, sorted by sample, then z, y, x.
pub struct Grid {
    pub samples: usize,
    /// Blocks per axis [z, y, x] of one volume.
    pub dims: [usize; 3],
    /// Per visible block: [sample, z, y, x].
    pub blocks: Vec<[u32; 4]>,
    /// Per visible block: index of the visible neighbour at (dz+1)*9 + (dy+1)*3 + (dx+1), or -1.
    pub neighbours: Vec<[i32; 27]>,
    /// First block of each sample, and the number of blocks at the end: `samples + 1` entries.
    pub starts: Vec<usize>,
    on_card: OnceLock<Piece>,
}

impl Grid {
    /// From a visibility map of `samples * z * y * x` cells (1 = visible).
    pub fn new(samples: usize, dims: [usize; 3], visible: &[u8]) -> Result<Grid> {
        let cells = dims[0] * dims[1] * dims[2];
        if visible.len() != samples * cells {
            return Err(format!("mask has {} cells, {} are needed", visible.len(), samples * cells));
        }
        let (mut blocks, mut starts, mut index) = (Vec::new(), vec![0], vec![-1i32; visible.len()]);
        for n in 0..samples {
            for cell in 0..cells {
                if visible[n * cells + cell] != 0 {
                    index[n * cells + cell] = blocks.len() as i32;
                    let [_, gy, gx] = dims;
                    blocks.push([n as u32, (cell / (gy * gx)) as u32, (cell / gx % gy) as u32, (cell % gx) as u32]);
                }
            }
            starts.push(blocks.len());
        }
        let inside =
            |v: u32, d: usize, size: usize| Some(v as i64 + d as i64 - 1).filter(|&p| p >= 0 && p < size as i64);
        let neighbours = blocks
            .iter()
            .map(|&[n, z, y, x]| {
                std::array::from_fn(|d| {
                    let (z, y, x) =
                        (inside(z, d / 9, dims[0]), inside(y, d / 3 % 3, dims[1]), inside(x, d % 3, dims[2]));
                    match (z, y, x) {
                        (Some(z), Some(y), Some(x)) => {
                            index[n as usize * cells + ((z as usize * dims[1]) + y as usize) * dims[2] + x as usize]
                        }
                        _ => -1,
                    }
                })
            })
            .collect();
        Ok(Grid { samples, dims, blocks, neighbours, starts, on_card: OnceLock::new() })
    }
    /// `neighbours` on the card, brought there once; on the worker thread.
    pub fn neighbours_on_card(&self) -> At {
        self.on_card.get_or_init(|| gpu::upload(self.neighbours.as_flattened())).at()
    }
}

static GRIDS: Mutex<Slots<Arc<Grid>>> = Mutex::new(Slots::new());

/// The grid behind a handle.
pub fn get(handle: u32) -> Result<Arc<Grid>> {
    GRIDS.lock().unwrap().get(handle)
}

exports! {
    /// A grid of `samples` volumes of z*y*x blocks from a visibility map (1 = visible).
    fn vx_grid_new(samples: u32, z: u32, y: u32, x: u32, visible: slice[u8]) {
        let grid = Grid::new(samples as usize, [z as usize, y as usize, x as usize], visible)?;
        Ok(GRIDS.lock().unwrap().insert(Arc::new(grid)) as f64)
    }
    /// Number of visible blocks.
    fn vx_grid_blocks(grid: u32) { Ok(get(grid)?.blocks.len() as f64) }
    /// Frees a grid.
    fn vx_grid_free(grid: u32) {
        let grid = GRIDS.lock().unwrap().remove(grid)?;
        crate::queue::drop_in_order(grid);
        Ok(0.0)
    }
    /// Number of grids alive.
    fn vx_live_grids() { Ok(GRIDS.lock().unwrap().live() as f64) }
}
