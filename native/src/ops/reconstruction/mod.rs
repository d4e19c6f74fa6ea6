//! Reconstruction error as one number.
//!
//! Contract. y, target `[rows][c]`, weight `[rows]` or none (1 everywhere); r = y - target.
//! loss = sum w * f(r) / (c * sum w + eps), eps 1e-12: one ratio over the batch. f: kind 0 r^2; 1 |r|; 2 Huber with
//! delta 1: r^2 / 2 where |r| < 1, |r| - 1/2 elsewhere. dy = dloss * w * f'(r) / (c * sum w + eps).

pub mod launch;

use super::rows;
use crate::abi::Result;
use crate::tensor::{self, Tensor};
use crate::{gpu, queue};

#[inline(always)]
fn error(kind: u32, r: f32) -> f32 {
    let a = r.abs();
    match kind {
        0 => r * r,
        1 => a,
        _ => {
            if a < 1.0 {
                0.5 * r * r
            } else {
                a - 0.5
            }
        }
    }
}

/// f'(r); that of |r| at 0 is 0, as in PyTorch.
#[inline(always)]
fn slope(kind: u32, r: f32) -> f32 {
    match kind {
        0 => 2.0 * r,
        1 => {
            if r == 0.0 {
                0.0
            } else {
                r.signum()
            }
        }
        _ => r.clamp(-1.0, 1.0),
    }
}

fn parse(y: u32, target: u32, weight: u32, rows: u32, c: u32, kind: u32) -> Result<(Tensor, Tensor, Option<Tensor>)> {
    if kind > 2 || c == 0 {
        return Err(format!("reconstruction: kind {kind} with {c} channels is not offered"));
    }
    let len = (rows * c) as usize;
    let weight = if weight == 0 { None } else { Some(tensor::get(weight, rows as usize, "reconstruction weight")?) };
    Ok((tensor::get(y, len, "reconstruction")?, tensor::get(target, len, "reconstruction target")?, weight))
}

/// The loss over `values = (y, target, weight)` and c * sum w + eps.
fn forward(y: &[f32], target: &[f32], weight: Option<&[f32]>, c: usize, kind: u32) -> (f64, f64) {
    let pieces = rows::pieces(&[0, y.len() / c], c);
    let sums = rows::sums(&pieces, 1, 2, |piece, sums| {
        for row in piece.rows.clone() {
            let w = weight.map_or(1.0, |w| w[row]);
            let at = row * c..(row + 1) * c;
            let f: f32 = y[at.clone()].iter().zip(&target[at]).map(|(y, t)| error(kind, y - t)).sum();
            sums[0] += (w * f) as f64;
            sums[1] += w as f64;
        }
    });
    let count = c as f64 * sums[1] + 1e-12;
    (sums[0] / count, count)
}

exports! {
    /// The loss, then c * sum w + eps: 2 values. kind: 0 mse, 1 l1, 2 huber; weight 0: none.
    fn vx_reconstruction(y: u32, target: u32, weight: u32, rows: u32, c: u32, kind: u32) {
        let (y, target, weight) = parse(y, target, weight, rows, c, kind)?;
        let (out, handle) = tensor::make(2);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&y, &target, &weight, c, kind, &out);
            }
            let weight = weight.as_ref().map(|w| w.values());
            let (loss, count) = forward(y.values(), target.values(), weight, c as usize, kind);
            out.values_mut().copy_from_slice(&[loss as f32, count as f32]);
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of y from that of the loss and the 2 values of `vx_reconstruction`.
    fn vx_reconstruction_grad(dloss: u32, result: u32, y: u32, target: u32, weight: u32, rows: u32, c: u32, kind: u32) {
        let (y, target, weight) = parse(y, target, weight, rows, c, kind)?;
        let dloss = tensor::get(dloss, 1, "loss gradient")?;
        let result = tensor::get(result, 2, "reconstruction result")?;
        let (dy, handle) = tensor::make(y.len);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::gradient([&dloss, &result, &y, &target], &weight, c, kind, &dy);
            }
            let (c, factor) = (c as usize, dloss.values()[0] / result.values()[1]);
            let (y, target, weight) = (y.values(), target.values(), weight.as_ref().map(|w| w.values()));
            rows::fill(&rows::pieces(&[0, y.len() / c], c), c, dy.values_mut(), |piece, dy| {
                let at = piece.rows.start * c;
                for (i, ((dy, y), t)) in dy.iter_mut().zip(&y[at..]).zip(&target[at..]).enumerate() {
                    let w = weight.map_or(1.0, |w| w[piece.rows.start + i / c]);
                    *dy = factor * w * slope(kind, y - t);
                }
            });
            Ok(())
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn huber_vectors() {
        assert_eq!([0.5, 1.0, 3.0].map(|r| super::error(2, r)), [0.125, 0.5, 2.5]);
        assert_eq!([0.5, 1.0, -3.0].map(|r| super::slope(2, r)), [0.5, 1.0, -1.0]);
    }
}
