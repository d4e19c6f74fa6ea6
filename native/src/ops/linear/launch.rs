//! The kernels of `kernel.cu` as the contract asks for them, or cuBLASLt where that is turned on; rows of ours are its columns. f32 rows are a convolution of one tap, rounded as they load.

use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, Piece, Value, over};
use crate::grid::Grid;
use crate::launch;
use crate::ops::conv3d;
use crate::tensor::Buffer;

/// `Product` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Product {
    m: i32,
    n: i32,
    k: i32,
    split: i32,
}
impl Value for Product {}

const EDGE: usize = 128;
/// Bytes of two stages of both factors.
const STAGES: usize = 49152;
/// Blocks that fill a card, about; fixed, so that the bits do not depend on the card.
const BLOCKS: usize = 264;

impl Product {
    /// All of k in one split.
    fn whole([m, n, k]: [usize; 3]) -> Product {
        Product { m: m as i32, n: n as i32, k: k as i32, split: k.next_multiple_of(32) as i32 }
    }
}

/// All tiles of the result in the one direction of a grid that takes more than 65535.
fn tiles(m: usize, n: usize) -> [usize; 3] {
    [n.div_ceil(EDGE) * m.div_ceil(EDGE), 1, 1]
}

/// The weight in bf16.
fn rounded(weight: &Buffer) -> Result<Piece> {
    let to = gpu::scratch::<u16>(weight.len);
    launch!("convert_to_bf16", over(weight.len), 256, 0, weight.device(), weight.len as i64, to.at())?;
    Ok(to)
}

/// Rows as voxels of one block.
fn voxels(rows: usize, [c_in, c_out]: [usize; 2]) -> Result<(conv3d::Shape, Grid)> {
    Ok((conv3d::Shape { side: [rows, 1, 1], c_in, c_out, kernel: 1, stride: 1 }, Grid::new(1, [1; 3], &[1])?))
}

/// y = x weight^T + bias.
pub fn forward(c: [usize; 2], x: &Buffer, weight: &Buffer, bias: Option<&Buffer>, y: &Buffer) -> Result<()> {
    let rows = x.len / c[0];
    if x.dtype == Dtype::F32 {
        let (shape, grid) = voxels(rows, c)?;
        return conv3d::launch::forward(&shape, &grid, conv3d::launch::Joined::of(x), weight, bias, y);
    }
    let (p, w) = (Product::whole([rows, c[1], c[0]]), rounded(weight)?);
    if gpu::by_library() {
        let bias = bias.map(rounded).transpose()?;
        let at = bias.as_ref().map_or(0, |b| b.at().0);
        let (a, b, to) = (w.at().0, x.device().0, y.device_mut().0);
        if gpu::product(gpu::Product::new([c[1], rows, c[0]], [true, false], [a, b, to]).with(at))? {
            return Ok(());
        }
    }
    let bias = conv3d::launch::place(bias);
    launch!("linear", tiles(rows, c[1]), 256, STAGES, p, x.device(), w.at(), bias, y.device_mut())
}

/// dx = dy weight.
pub fn grad_input(c: [usize; 2], dy: &Buffer, weight: &Buffer, dx: &Buffer) -> Result<()> {
    let rows = dy.len / c[1];
    if dy.dtype == Dtype::F32 {
        let (shape, grid) = voxels(rows, c)?;
        return conv3d::launch::grad_input(&shape, &grid, dy, weight, conv3d::launch::Joined::of(dx));
    }
    let (p, w) = (Product::whole([rows, c[0], c[1]]), rounded(weight)?);
    if gpu::by_library() {
        let places = [w.at().0, dy.device().0, dx.device_mut().0];
        if gpu::product(gpu::Product::new([c[0], rows, c[1]], [false, false], places))? {
            return Ok(());
        }
    }
    launch!("linear_grad_input", tiles(rows, c[0]), 256, STAGES, p, dy.device(), w.at(), dx.device_mut())
}

/// dweight = dy^T x.
pub fn grad_weight(c: [usize; 2], x: &Buffer, dy: &Buffer, dw: &Buffer) -> Result<()> {
    let rows = x.len / c[0];
    if x.dtype == Dtype::F32 {
        let (shape, grid) = voxels(rows, c)?;
        return conv3d::launch::grad_weight(&shape, &grid, conv3d::launch::Joined::of(x), dy, dw);
    }
    if gpu::by_library() {
        let places = [x.device().0, dy.device().0, dw.device_mut().0];
        if gpu::product(gpu::Product::new([c[0], c[1], rows], [false, true], places).single())? {
            return Ok(());
        }
    }
    let [tiles, ..] = tiles(c[1], c[0]);
    let split = rows.div_ceil((BLOCKS / tiles).max(1)).next_multiple_of(32).max(256);
    let splits = rows.div_ceil(split);
    let p = Product { m: c[1] as i32, n: c[0] as i32, k: rows as i32, split: split as i32 };
    let partial = gpu::scratch::<f32>(splits * dw.len);
    let grid = [tiles, 1, splits];
    launch!("linear_grad_weight", grid, 256, STAGES, p, dy.device(), x.device(), partial.at())?;
    launch!("linear_fold", over(dw.len), 256, 0, partial.at(), splits as i32, dw.len as i64, dw.device_mut())
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_of_whole_volumes_fit_a_grid() {
        let rows = 4 * 160usize.pow(3);
        let [x, y, z] = super::tiles(rows, 128);
        assert!(rows > 65535 * super::EDGE && x <= i32::MAX as usize && y <= 65535 && z <= 65535);
    }
}
