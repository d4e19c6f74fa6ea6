//! Soft Dice plus cross entropy, the loss of nnU-Net, and softmax.
//!
//! Contract. logits `[n][voxels][classes]`, labels `[n][voxels]` with integers below `classes`. p = softmax,
//! G one-hot; per sample (or over the batch) and class c >= 1: dice_c = (2 sum pG + s) / (sum p + sum G + s), s = 1e-5.
//! loss = mean over voxels of -log p_label - dice * mean over classes (and samples) of dice_c; dice = 0 leaves the cross
//! entropy, of a classifier with one voxel per image. Sums in f64, in stretches of
//! voxels that do not depend on the number of cores.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::abi::Result;
use crate::{gpu, queue, tensor};

/// Sizes of one batch.
#[derive(Clone, Copy)]
pub struct Shape {
    pub n: usize,
    pub voxels: usize,
    pub classes: usize,
    pub batch_dice: bool,
    /// Weight of the Dice term.
    pub dice: f32,
}

impl Shape {
    fn new(n: u32, voxels: u32, classes: u32, batch_dice: bool, dice: f32) -> Result<Shape> {
        if n == 0 || voxels == 0 || classes < 2 {
            return Err(format!("segmentation loss: {n} x {voxels} voxels of {classes} classes; 2 classes are needed"));
        }
        Ok(Shape { n: n as usize, voxels: voxels as usize, classes: classes as usize, batch_dice, dice })
    }
    pub fn rows(&self) -> usize {
        self.n * self.voxels
    }
}

exports! {
    /// The loss, one value. A label that is no class is an error of the next wait.
    fn vx_dice_ce(logits: u32, labels: u32, n: u32, voxels: u32, classes: u32, batch_dice: bool, dice: f32) {
        let s = Shape::new(n, voxels, classes, batch_dice, dice)?;
        let logits = tensor::get(logits, s.rows() * s.classes, "logits")?;
        let labels = tensor::get(labels, s.rows(), "labels")?;
        let (y, handle) = tensor::make(1);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::loss(&s, &logits, &labels, &y);
            }
            y.values_mut()[0] = cpu::loss(&s, logits.values(), labels.values())? as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the logits from that of the loss.
    fn vx_dice_ce_grad(dy: u32, logits: u32, labels: u32, n: u32, voxels: u32, classes: u32, batch_dice: bool, dice: f32) {
        let s = Shape::new(n, voxels, classes, batch_dice, dice)?;
        let dy = tensor::get(dy, 1, "loss gradient")?;
        let logits = tensor::get(logits, s.rows() * s.classes, "logits")?;
        let labels = tensor::get(labels, s.rows(), "labels")?;
        let (dz, handle) = tensor::make(s.rows() * s.classes);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::gradient(&s, &dy, &logits, &labels, &dz);
            }
            cpu::gradient(&s, logits.values(), labels.values(), dy.values()[0] as f64, dz.values_mut())
        });
        Ok(handle)
    }
    /// Softmax over the channels of `[rows][classes]`.
    fn vx_softmax(x: u32, rows: u32, classes: u32) {
        let (rows, classes) = (rows as usize, classes as usize);
        let x = tensor::get(x, rows * classes, "softmax input")?;
        let (y, handle) = tensor::make(rows * classes);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::softmax(&x, rows, classes, &y);
            }
            cpu::softmax_rows(x.values(), classes, y.values_mut());
            Ok(())
        });
        Ok(handle)
    }
}
