//! Cross entropy of rows: the loss of a classifier.
//!
//! Contract. logits `[rows][classes]`, labels `[rows]` with integers below `classes`. loss = mean over rows of
//! -log softmax(logits)[label], in f64; dlogits = dloss * (softmax(logits) - one-hot) / rows.

use super::segmentation::cpu::softmax_rows;
use crate::abi::Result;
use crate::queue;
use crate::tensor::{self, Tensor};

fn parse(logits: u32, labels: u32, rows: u32, classes: u32) -> Result<(Tensor, Tensor, usize)> {
    if rows == 0 || classes < 2 {
        return Err(format!("cross entropy: {rows} rows of {classes} classes; 2 classes are needed"));
    }
    let (rows, classes) = (rows as usize, classes as usize);
    Ok((tensor::get(logits, rows * classes, "logits")?, tensor::get(labels, rows, "labels")?, classes))
}

fn class(label: f32, classes: usize) -> Result<usize> {
    if label < 0.0 || label.fract() != 0.0 || label >= classes as f32 {
        return Err(format!("cross entropy: label {label} is no class; there are {classes}"));
    }
    Ok(label as usize)
}

fn forward(logits: &[f32], labels: &[f32], classes: usize) -> Result<f64> {
    let mut sum = 0.0;
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let top = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v)) as f64;
        let all: f64 = row.iter().map(|&v| (v as f64 - top).exp()).sum();
        sum += all.ln() + top - row[class(label, classes)?] as f64;
    }
    Ok(sum / labels.len() as f64)
}

fn backward(logits: &[f32], labels: &[f32], classes: usize, dy: f32, dz: &mut [f32]) -> Result<()> {
    softmax_rows(logits, classes, dz);
    let weight = dy / labels.len() as f32;
    for (row, &label) in dz.chunks_exact_mut(classes).zip(labels) {
        row[class(label, classes)?] -= 1.0;
        row.iter_mut().for_each(|v| *v *= weight);
    }
    Ok(())
}

exports! {
    /// The loss, one value. A label that is no class is an error of the next wait.
    fn vx_cross_entropy(logits: u32, labels: u32, rows: u32, classes: u32) {
        let (logits, labels, classes) = parse(logits, labels, rows, classes)?;
        let (y, handle) = tensor::make(1);
        queue::enqueue(move || {
            y.values_mut()[0] = forward(logits.values(), labels.values(), classes)? as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the logits from that of the loss.
    fn vx_cross_entropy_grad(dy: u32, logits: u32, labels: u32, rows: u32, classes: u32) {
        let dy = tensor::get(dy, 1, "loss gradient")?;
        let (logits, labels, classes) = parse(logits, labels, rows, classes)?;
        let (dz, handle) = tensor::make(logits.len);
        queue::enqueue(move || backward(logits.values(), labels.values(), classes, dy.values()[0], dz.values_mut()));
        Ok(handle)
    }
}
