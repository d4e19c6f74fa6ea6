//! The kernels of `kernel.cu` as the contract asks for them.

use super::{Shape, cpu};
use crate::abi::Result;
use crate::gpu::{self, NULL, Piece, Value, over};
use crate::launch;
use crate::tensor::Buffer;

/// Slices of a sample, at most, and voxels of one, at least: fixed, so that the bits do not depend on the card.
const SLICES: usize = 256;
const LEAST: usize = 4096;

/// `Segmentation` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Segmentation {
    samples: i32,
    voxels: i32,
    classes: i32,
    batch_dice: i32,
    slice: i32,
    dice: f32,
}
impl Value for Segmentation {}

/// What the loss and its gradient both need: logs of the sums of exp per voxel, and the slopes of Dice.
struct Sums {
    shape: Segmentation,
    l: Piece,
    slopes: Piece,
}

/// Writes the loss, too, where there is a place for it.
fn sums(s: &Shape, logits: &Buffer, labels: &Buffer, loss: Option<&Buffer>) -> Result<Sums> {
    let slice = s.voxels.div_ceil(SLICES).max(LEAST);
    let (slices, groups) = (s.voxels.div_ceil(slice), if s.batch_dice { 1 } else { s.n });
    let [samples, voxels, classes, slice] = [s.n, s.voxels, s.classes, slice].map(|v| v as i32);
    let shape = Segmentation { samples, voxels, classes, batch_dice: s.batch_dice as i32, slice, dice: s.dice };
    let (l, partial) = (gpu::scratch::<f32>(s.rows()), gpu::scratch::<f32>(s.n * slices * s.classes * 4));
    let slopes = gpu::scratch::<f32>(2 * groups * s.classes);
    let parts = gpu::scratch::<f64>(2 * groups * s.classes);
    let (z, lanes) = (logits.device(), s.classes.next_power_of_two().min(32) as i32);
    launch!("segmentation_logs", over(s.rows()), 256, 0, z, s.rows() as i64, classes, l.at())?;
    let (grid, labels) = ([slices, s.classes.div_ceil(32), s.n], labels.device());
    launch!("segmentation_sums", grid, 256, 4096, shape, lanes, z, labels, l.at(), partial.at())?;
    let (slices, loss) = (slices as i32, loss.map_or(NULL, |b| b.device_mut()));
    launch!("segmentation_fold", [1; 3], 256, 0, shape, slices, partial.at(), parts.at(), slopes.at(), loss)?;
    Ok(Sums { shape, l, slopes })
}

/// The loss. The labels are looked at where they are made, on the host.
pub fn loss(s: &Shape, logits: &Buffer, labels: &Buffer, y: &Buffer) -> Result<()> {
    cpu::check_labels(labels.values(), s.classes)?;
    sums(s, logits, labels, Some(y)).map(|_| ())
}

/// Gradient of the logits from that of the loss.
pub fn gradient(s: &Shape, dy: &Buffer, logits: &Buffer, labels: &Buffer, dz: &Buffer) -> Result<()> {
    let Sums { shape, l, slopes } = sums(s, logits, labels, None)?;
    let (dy, z, labels, to) = (dy.device(), logits.device(), labels.device(), dz.device_mut());
    launch!("segmentation_grad", over(s.rows()), 256, 0, shape, dy, z, labels, l.at(), slopes.at(), to)
}

/// Softmax of each row.
pub fn softmax(x: &Buffer, rows: usize, classes: usize, y: &Buffer) -> Result<()> {
    launch!("segmentation_softmax", over(rows), 256, 0, x.device(), rows as i64, classes as i32, y.device_mut())
}
