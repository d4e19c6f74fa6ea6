//! The kernels of `kernel.cu` as the contract asks for them: tiles and halos are chosen here.

use super::choice::Direction;
use super::{Shape, Up};
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, At, NULL, Piece, Slices, Value, typed};
use crate::grid::Grid;
use crate::launch;
use crate::ops::norm::later::Normed;
use crate::ops::{conv3d_stacked, conv3d_weight, conv3d_wide};
use crate::tensor::{Buffer, Stretches};
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

/// Rows of a tile, and voxels that its halo may have: of the convolution, large or small, and of the weight gradient.
/// What they take is below the 99 KiB of shared memory that every card since compute capability 8.0 has.
const TILES: [(usize, usize); 2] = [(256, 1280), (128, 1384)];
/// Beside a larger halo there is room for the weights of 32 output channels only.
const HALO_OF_64: usize = 1280;
const GRAD_TILE: (usize, usize) = (64, 704);
/// Blocks that fill a card, about; fixed, so that the bits do not depend on the card.
const BLOCKS: usize = 528;
/// Taps whose weights are staged.
const AHEAD: usize = 3;
/// Bytes of a staged voxel: 32 channels.
const STAGED: usize = 64;

/// `Conv` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Conv {
    blocks: i32,
    side: [i32; 3],
    tile: [i32; 3],
    parts: i32,
    halo: [i32; 3],
    stride: i32,
    pad: i32,
    spread: i32,
    parity: [i32; 3],
    c_in: i32,
    c_out: i32,
    in_padded: i32,
    out_padded: i32,
    taps: i32,
    offset: [i32; 27],
    of_tile: [u32; 3],
    of_halo: [u32; 3],
}
impl Value for Conv {}

/// A tensor, or two that lie joined on channels: the kernels of `kernel.cu` read and write either.
#[derive(Clone, Copy)]
pub struct Joined<'a> {
    pub x: &'a Buffer,
    /// The second, and the channels of the first, a multiple of 8.
    pub other: Option<(&'a Buffer, usize)>,
}

impl<'a> Joined<'a> {
    pub fn of(x: &'a Buffer) -> Self {
        Joined { x, other: None }
    }
    fn alone(self) -> Option<&'a Buffer> {
        self.other.is_none().then_some(self.x)
    }
    /// As the kernels take it, by what says where a tensor lies.
    fn places(self, at: impl Fn(&Buffer) -> At) -> Places {
        let (other, first) = self.other.map_or((NULL, 0), |(other, first)| (at(other), first));
        Places { x: at(self.x), other, first: first as i32 }
    }
}

/// `Joined` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Places {
    x: At,
    other: At,
    first: i32,
}
impl Value for Places {}

/// Whether the kernels read (or write) two tensors of `c` channels as they are.
pub fn takes_two(s: &Shape, grid: &Grid, c: [usize; 2], dtype: Dtype, direction: Direction) -> bool {
    let taken = |c| conv3d_stacked::takes(s, c, dtype) || conv3d_wide::takes(s, grid, c, dtype);
    let elsewhere = match direction {
        Direction::Forward => taken([s.c_in, s.c_out]),
        Direction::GradInput => taken([s.c_out, s.c_in]),
        Direction::GradWeight => conv3d_weight::takes(s, dtype),
    };
    c[0].is_multiple_of(8) && !elsewhere
}

/// `Pack` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pack {
    c_in: i32,
    c_out: i32,
    in_padded: i32,
    out_padded: i32,
    turned: i32,
    taps: i32,
    file_taps: i32,
    source: [i32; 27],
}
impl Value for Pack {}

/// Which voxels a launch reads and writes, beside its channels; per tap its place in the halo and in the file.
struct Access {
    stride: usize,
    pad: usize,
    reach: usize,
    spread: usize,
    parity: [usize; 3],
    taps: Vec<([usize; 3], usize)>,
}

impl Access {
    /// All taps of a kernel, as the forward pass reads them.
    fn all(kernel: usize, stride: usize, pad: usize) -> Access {
        let place = |t: usize| [t / (kernel * kernel), t / kernel % kernel, t % kernel];
        let taps = (0..kernel.pow(3)).map(|t| (place(t), t)).collect();
        Access { stride, pad, reach: kernel, spread: 1, parity: [0; 3], taps }
    }
    /// The taps turned: the gradient of the input at stride 1.
    fn turned(kernel: usize) -> Access {
        let mut access = Access::all(kernel, 1, kernel / 2);
        let last = access.taps.len() - 1;
        access.taps.iter_mut().for_each(|tap| tap.1 = last - tap.1);
        access
    }
    fn parity_of(number: usize) -> [usize; 3] {
        [number >> 2, number >> 1 & 1, number & 1]
    }
    /// Taps through which input voxel 2i + parity of a stride-2, 3x3x3 convolution reaches outputs.
    fn reaching(number: usize) -> Access {
        let parity = Self::parity_of(number);
        // Tap in the file, place in the halo.
        let along = |odd: usize| if odd == 1 { &[(0, 2), (2, 1)][..] } else { &[(1, 1)][..] };
        let mut taps = Vec::new();
        for &(tz, oz) in along(parity[0]) {
            for &(ty, oy) in along(parity[1]) {
                taps.extend(along(parity[2]).iter().map(|&(tx, ox)| ([oz, oy, ox], tz * 9 + ty * 3 + tx)));
            }
        }
        Access { stride: 1, pad: 1, reach: 3, spread: 2, parity, taps }
    }
    /// The one tap that writes output voxel 2i + parity of the transposed convolution.
    fn spreading(number: usize) -> Access {
        let (parity, taps) = (Self::parity_of(number), vec![([0; 3], number)]);
        Access { stride: 1, pad: 0, reach: 1, spread: 2, parity, taps }
    }
}

/// Sides of tiles of at most `rows` voxels and `limit` with their halo, and how many blocks one holds where it holds whole ones:
/// those that take the least to multiply (all rows, used or not) and to load.
fn cut(
    blocks: usize,
    side: [usize; 3],
    (stride, reach): (usize, usize),
    (rows, limit): (usize, usize),
) -> ([usize; 3], usize) {
    type Known = HashMap<([usize; 6], [usize; 2]), ([usize; 3], usize)>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let [sz, sy, sx] = side;
    let halo = |tile: [usize; 3]| tile.iter().map(|t| (t - 1) * stride + reach).product::<usize>();
    let search = || {
        let spans = side.map(|s| {
            let mut list: Vec<usize> = (1..=s).map(|parts| s.div_ceil(parts)).filter(|&t| t <= rows).collect();
            list.dedup();
            list
        });
        let mut best = (usize::MAX, ([1; 3], 1));
        for &z in &spans[0] {
            for &y in spans[1].iter().filter(|&&y| z * y <= rows) {
                for &x in spans[2].iter().filter(|&&x| z * y * x <= rows && halo([z, y, x]) <= limit) {
                    let most =
                        if [z, y, x] == side { blocks.min(rows / (z * y * x)).min(limit / halo(side)) } else { 1 };
                    let tiles = blocks.div_ceil(most) * sz.div_ceil(z) * sy.div_ceil(y) * sx.div_ceil(x);
                    // A voxel of the halo takes about a quarter of what a row does.
                    best = best.min((tiles * (4 * rows + most * halo([z, y, x])), ([z, y, x], most)));
                }
            }
        }
        best.1
    };
    *KNOWN.lock().unwrap().entry(([blocks, sz, sy, sx, stride, reach], [rows, limit])).or_insert_with(search)
}

/// 2^21 divided by the voxels of a box, of a plane and of a row of it, rounded up: kernels divide small numbers by those.
fn inverses([z, y, x]: [usize; 3]) -> [u32; 3] {
    [z * y * x, y * x, x].map(|n| (1u32 << 21).div_ceil(n as u32))
}

fn padded(channels: usize) -> usize {
    channels.next_multiple_of(32)
}

/// One member of the family: `side` rows of a block, channels read and written.
struct Plan {
    conv: Conv,
    pack: Pack,
    /// Rows of the product that a tile has room for.
    rows: usize,
    tiles: usize,
    /// Bytes of the halo, and of the tables of where it and the rows lie.
    halo: usize,
    tables: usize,
}

impl Plan {
    /// Of a convolution. Large tiles read fewer weights per row; blocks of few voxels do not fill them, and few of them do not fill
    /// a card.
    fn tiled(
        blocks: usize,
        side: [usize; 3],
        channels: [usize; 2],
        access: &Access,
        [file_taps, turned]: [usize; 2],
    ) -> Plan {
        let [large, small] = TILES.map(|tile| Plan::new(blocks, side, channels, access, [file_taps, turned], tile));
        let fills = large.tiles * (large.conv.out_padded as usize).div_ceil(64) >= BLOCKS / 2;
        if fills && 4 * large.tiles <= 3 * small.tiles { large } else { small }
    }

    /// For tiles of so many rows and a halo of at most so many voxels.
    fn new(
        blocks: usize,
        side: [usize; 3],
        [c_in, c_out]: [usize; 2],
        access: &Access,
        [file_taps, turned]: [usize; 2],
        (rows, limit): (usize, usize),
    ) -> Plan {
        let (tile, parts) = cut(blocks, side, (access.stride, access.reach), (rows, limit));
        let halo = tile.map(|t| (t - 1) * access.stride + access.reach);
        let ints = |v: [usize; 3]| v.map(|v| v as i32);
        let mut conv = Conv {
            blocks: blocks as i32,
            side: ints(side),
            tile: ints(tile),
            parts: parts as i32,
            halo: ints(halo),
            stride: access.stride as i32,
            pad: access.pad as i32,
            spread: access.spread as i32,
            parity: ints(access.parity),
            c_in: c_in as i32,
            c_out: c_out as i32,
            in_padded: padded(c_in) as i32,
            out_padded: padded(c_out) as i32,
            taps: access.taps.len() as i32,
            offset: [0; 27],
            of_tile: inverses(tile),
            of_halo: inverses(halo),
        };
        let mut pack = Pack {
            c_in: conv.c_in,
            c_out: conv.c_out,
            in_padded: conv.in_padded,
            out_padded: conv.out_padded,
            turned: turned as i32,
            taps: conv.taps,
            file_taps: file_taps as i32,
            source: [0; 27],
        };
        for (i, ([z, y, x], source)) in access.taps.iter().enumerate() {
            conv.offset[i] = ((z * halo[1] + y) * halo[2] + x) as i32;
            pack.source[i] = *source as i32;
        }
        let tiles = blocks.div_ceil(parts) * (0..3).map(|d| side[d].div_ceil(tile[d])).product::<usize>();
        let voxels = parts * halo.iter().product::<usize>();
        Plan { conv, pack, rows, tiles, halo: voxels * STAGED, tables: (voxels + rows) * size_of::<i32>() }
    }

    fn packed_len(&self) -> usize {
        (self.pack.taps * self.pack.in_padded * self.pack.out_padded) as usize
    }

    /// Rows of a tile, where all tiles are full and none holds rows of two samples.
    fn even(&self, grid: &Grid) -> Option<usize> {
        let Conv { side, tile, parts, .. } = self.conv;
        let full = (0..3).all(|d| side[d] % tile[d] == 0) && grid.starts.iter().all(|s| s % parts as usize == 0);
        full.then(|| (parts * tile[0] * tile[1] * tile[2]) as usize)
    }

    /// The norm that x waits for, where the kernels can apply it as they load.
    fn normed(&self, grid: Option<&Grid>, x: Joined) -> Option<(At, Normed, Piece)> {
        let (Conv { side, stride, parts, .. }, grid, x) = (self.conv, grid?, x.alone()?);
        let voxels = side.map(|s| (s * stride) as usize).iter().product();
        let later = x.later().filter(|later| later.fits(grid, voxels, parts as usize))?;
        let (normed, starts) = later.normed(grid);
        Some((later.x.device(), normed, starts))
    }

    /// y = conv(x) + bias; neighbours: 27 of each block. tiles: where mean and variance of each tile go. grid: where x may wait
    /// for a norm.
    #[allow(clippy::too_many_arguments)]
    fn convolve(
        &self,
        grid: Option<&Grid>,
        x: Joined,
        neighbours: At,
        weight: At,
        bias: At,
        y: Joined,
        tiles: At,
    ) -> Result<()> {
        let packed = gpu::scratch::<u16>(self.packed_len());
        let Pack { in_padded, out_padded, file_taps, .. } = self.pack;
        let (blocks, values) = ([out_padded as usize / 32, in_padded as usize / 8, 1], 256 * file_taps as usize);
        launch!("conv3d_pack", blocks, 256, values * size_of::<f32>(), self.pack, weight, packed.at())?;
        let wide = if self.conv.out_padded % 64 == 0 && self.halo <= HALO_OF_64 * STAGED { 64 } else { 32 };
        let kernel = if wide == 64 { "conv3d_64" } else { "conv3d_32" };
        let (tiling, packed) = ([self.tiles, self.conv.out_padded as usize / wide, 1], packed.at());
        let (threads, shared, to) = (
            (self.rows * wide / 64) as u32,
            self.halo + AHEAD * STAGED * wide + self.tables,
            y.places(Buffer::device_mut),
        );
        if let Some((from, normed, _starts)) = self.normed(grid, x) {
            let kernel = format!("{kernel}_normed");
            return launch!(
                kernel, tiling, threads, shared, self.conv, from, normed, neighbours, packed, bias, to, tiles
            );
        }
        let (kernel, from) = (typed(kernel, x.x.dtype), x.places(Buffer::device));
        launch!(kernel, tiling, threads, shared, self.conv, from, neighbours, packed, bias, to, tiles)
    }

    /// dw from what the forward pass read and the gradient of what it wrote.
    fn weight_gradient(&self, grid: Option<&Grid>, x: Joined, neighbours: At, dy: &Buffer, dw: &Buffer) -> Result<()> {
        let [c_in, c_out] = [self.conv.in_padded, self.conv.out_padded].map(|c| c as usize / 32);
        let splits = self.tiles.min((BLOCKS / (c_in * c_out)).max(1));
        let (kernel, threads, shares) =
            if self.conv.taps == 1 { ("conv3d_weight_1", 128, 4) } else { ("conv3d_weight_27", 288, 1) };
        let partial = gpu::scratch::<f32>(splits * shares * self.packed_len());
        let shared = 2 * (self.halo + GRAD_TILE.0 * STAGED) + self.tables;
        let (tiling, dy, to) = ([splits, c_in, c_out], dy.device(), partial.at());
        match self.normed(grid.filter(|_| self.conv.taps > 1), x) {
            Some((from, normed, _starts)) => {
                let kernel = "conv3d_weight_27_normed";
                launch!(kernel, tiling, threads, shared, self.conv, from, normed, neighbours, dy, to)?
            }
            None => {
                let (kernel, from) = (typed(kernel, x.x.dtype), x.places(Buffer::device));
                launch!(kernel, tiling, threads, shared, self.conv, from, neighbours, dy, to)?
            }
        }
        let parts = (splits * shares) as i32;
        launch!(
            "conv3d_weight_sum",
            [dw.len.div_ceil(32), 1, 1],
            256,
            1024,
            self.pack,
            partial.at(),
            parts,
            dw.device_mut()
        )
    }
}

/// Where a tensor that may be absent lies.
pub fn place(tensor: Option<&Buffer>) -> At {
    tensor.map_or(NULL, |t| t.device())
}

/// As `cpu::forward`; leaves mean and variance of each tile with y, for a norm that may follow.
pub fn forward(s: &Shape, grid: &Grid, x: Joined, w: &Buffer, bias: Option<&Buffer>, y: &Buffer) -> Result<()> {
    let channels = [s.c_in, s.c_out];
    if let Some(x) = x.alone().filter(|x| conv3d_stacked::takes(s, channels, x.dtype)) {
        return conv3d_stacked::convolve(s, grid, channels, false, x, w, bias, y);
    }
    if let Some(x) = x.alone().filter(|x| conv3d_wide::takes(s, grid, channels, x.dtype)) {
        return conv3d_wide::convolve(s, grid, channels, false, x, w, bias, y);
    }
    let access = Access::all(s.kernel, s.stride, s.kernel / 2);
    let plan = Plan::tiled(grid.blocks.len(), s.side, channels, &access, [s.taps(), 0]);
    let even = plan.even(grid);
    let tiles = even.map(|_| gpu::scratch::<f32>(2 * plan.tiles * s.c_out));
    let at = tiles.as_ref().map_or(NULL, |t| t.at());
    plan.convolve(Some(grid), x, grid.neighbours_on_card(), w.device(), place(bias), Joined::of(y), at)?;
    if let (Some(rows), Some(values)) = (even, tiles) {
        y.leave(Stretches { rows, values });
    }
    Ok(())
}

/// As `cpu::grad_input`: at stride 2 one launch per parity of the input voxel.
pub fn grad_input(s: &Shape, grid: &Grid, dy: &Buffer, w: &Buffer, dx: Joined) -> Result<()> {
    let channels = [s.c_out, s.c_in];
    if let Some(dx) = dx.alone().filter(|_| conv3d_stacked::takes(s, channels, dy.dtype)) {
        return conv3d_stacked::convolve(s, grid, channels, true, dy, w, None, dx);
    }
    if let Some(dx) = dx.alone().filter(|_| conv3d_wide::takes(s, grid, channels, dy.dtype)) {
        return conv3d_wide::convolve(s, grid, channels, true, dy, w, None, dx);
    }
    let accesses = if s.stride == 1 { vec![Access::turned(s.kernel)] } else { (0..8).map(Access::reaching).collect() };
    accesses.iter().try_for_each(|access| {
        let plan = Plan::tiled(grid.blocks.len(), s.side, channels, access, [s.taps(), 1]);
        plan.convolve(None, Joined::of(dy), grid.neighbours_on_card(), w.device(), NULL, dx, NULL)
    })
}

/// dw = `parts` partial sums `[27][rows][columns]` added in order. `columns_out`: columns are output channels, and the taps are
/// turned.
pub fn fold_taps([rows, columns]: [usize; 2], columns_out: bool, partial: At, parts: usize, dw: &Buffer) -> Result<()> {
    let [c_in, c_out] = [rows, columns].map(|c| c as i32);
    let mut pack =
        Pack { c_in, c_out, in_padded: c_in, out_padded: c_out, turned: 0, taps: 27, file_taps: 27, source: [0; 27] };
    pack.turned = !columns_out as i32;
    (0..27).for_each(|tap| pack.source[tap] = (if columns_out { 26 - tap } else { tap }) as i32);
    launch!("conv3d_weight_sum", [dw.len.div_ceil(32), 1, 1], 256, 1024, pack, partial, parts as i32, dw.device_mut())
}

/// As `cpu::grad_weight`.
pub fn grad_weight(s: &Shape, grid: &Grid, x: Joined, dy: &Buffer, dw: &Buffer) -> Result<()> {
    if let Some(x) = x.alone().filter(|x| conv3d_weight::takes(s, x.dtype)) {
        return conv3d_weight::gradient(s, grid, x, dy, dw);
    }
    let access = Access::all(s.kernel, s.stride, s.kernel / 2);
    let plan = Plan::new(grid.blocks.len(), s.side, [s.c_in, s.c_out], &access, [s.taps(), 0], GRAD_TILE);
    plan.weight_gradient(Some(grid), x, grid.neighbours_on_card(), dy, dw)
}

/// Neighbours of blocks of which nothing beyond the edge is read: each is its own.
fn alone(blocks: usize) -> Piece {
    gpu::upload(&(0..blocks as i32 * 27).map(|i| i / 27).collect::<Vec<_>>())
}

/// As `cpu::up_forward`: one launch per parity of the output voxel.
pub fn up_forward(s: &Up, x: &Buffer, w: &Buffer, bias: &Buffer, y: &Buffer) -> Result<()> {
    let neighbours = alone(s.blocks);
    (0..8).map(Access::spreading).try_for_each(|access| {
        let plan = Plan::tiled(s.blocks, s.side, [s.c_in, s.c_out], &access, [8, 1]);
        plan.convolve(None, Joined::of(x), neighbours.at(), w.device(), bias.device(), Joined::of(y), NULL)
    })
}

/// As `cpu::up_grad_input`: a convolution with 2x2x2 taps and stride 2.
pub fn up_grad_input(s: &Up, dy: &Buffer, w: &Buffer, dx: &Buffer) -> Result<()> {
    let plan = Plan::tiled(s.blocks, s.side, [s.c_out, s.c_in], &Access::all(2, 2, 0), [8, 0]);
    plan.convolve(None, Joined::of(dy), alone(s.blocks).at(), w.device(), NULL, Joined::of(dx), NULL)
}

/// As `cpu::up_grad_weight`.
pub fn up_grad_weight(s: &Up, x: &Buffer, dy: &Buffer, dw: &Buffer) -> Result<()> {
    let plan = Plan::new(s.blocks, s.side, [s.c_out, s.c_in], &Access::all(2, 2, 0), [8, 0], GRAD_TILE);
    plan.weight_gradient(None, Joined::of(dy), alone(s.blocks).at(), x, dw)
}

/// Sum over the rows of `[rows][c]`.
pub fn sum_rows(x: &Buffer, rows: usize, c: usize, sums: &Buffer) -> Result<()> {
    let slices = Slices::new(rows, c, x.dtype, 1, 1);
    let (partial, kernel) = (gpu::scratch::<f32>(slices.count * c), typed("conv3d_bias", x.dtype));
    let (n, width, count) = (rows as i64, c as i32, slices.count as i32);
    launch!(kernel, slices.grid(), 256, slices.shared, x.device(), n, width, slices.rows, partial.at())?;
    launch!("conv3d_bias_fold", gpu::fold(c), 256, 0, partial.at(), count, width, sums.device_mut())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_and_waste_little() {
        let (large, small) = (TILES[0], TILES[1]);
        for (blocks, side, access, of, least) in [
            (6, [160; 3], (1, 3), large, 1.0),
            (6, [20; 3], (1, 3), large, 0.97),
            (6, [10; 3], (1, 3), large, 0.97),
            (300, [5; 3], (1, 3), large, 0.97),
            (2000, [32; 3], (1, 3), large, 1.0),
            (2000, [4; 3], (1, 3), large, 1.0),
            (2000, [2; 3], (1, 3), small, 1.0),
            (2000, [16; 3], (2, 3), small, 1.0),
            (6, [96; 3], (1, 1), large, 1.0),
            (1, [7, 1, 130], (1, 3), small, 0.88),
            (6, [10; 3], (1, 3), GRAD_TILE, 0.78),
        ] {
            let (tile, parts) = cut(blocks, side, access, of);
            let count = |v: [usize; 3]| v.iter().product::<usize>();
            let halo = count(tile.map(|t| (t - 1) * access.0 + access.1)) * parts;
            assert!(count(tile) * parts <= of.0 && halo <= of.1, "{side:?}: {tile:?} x {parts}");
            let tiles = blocks.div_ceil(parts) * (0..3).map(|d| side[d].div_ceil(tile[d])).product::<usize>();
            let used = (blocks * count(side)) as f64 / (tiles * of.0) as f64;
            assert!(used >= least, "{side:?}: {tile:?} x {parts} uses {used}");
        }
    }
}
