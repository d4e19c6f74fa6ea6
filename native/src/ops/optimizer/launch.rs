//! The kernels of `kernel.cu` as the contract asks for them: one launch over all tensors for each of its parts.

use super::cpu::{AdamW, Sgd};
use super::{Moments, Update};
use crate::abi::Result;
use crate::gpu::{self, At, NULL, Piece};
use crate::launch;
use crate::memory::Plain;
use crate::tensor::{Buffer, Tensor};

/// Values that one block works on: as in kernel.cu.
const CHUNK: usize = 16384;
/// Bytes of `Step` of kernel.cu.
const STEP: usize = 8;

/// `Part` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Part {
    gradient: At,
    parameter: At,
    /// First and second moment, largest second moment, count of steps.
    state: [At; 4],
    /// What follows the parameter, if anything.
    teacher: At,
    values: i64,
    chunk: i32,
    unused: i32,
}
impl Plain for Part {}

/// The tensors of a launch on the card, and the grid over all their chunks.
struct Parts {
    table: Piece,
    count: usize,
    grid: [usize; 3],
}

impl Parts {
    /// Each: values, gradient, parameter, state, teacher.
    fn new(list: impl Iterator<Item = (usize, At, At, [At; 4], At)>) -> Parts {
        let mut chunks = 0;
        let part = |(values, gradient, parameter, state, teacher): (usize, At, At, [At; 4], At)| {
            let chunk = chunks as i32;
            chunks += values.div_ceil(CHUNK);
            Part { gradient, parameter, state, teacher, values: values as i64, chunk, unused: 0 }
        };
        let parts: Vec<Part> = list.map(part).collect();
        Parts { table: gpu::upload(&parts), count: parts.len(), grid: [chunks, 1, 1] }
    }
    /// Of updates, whose state `state` takes apart.
    fn of<S>(updates: &[Update<S>], state: impl Fn(&S) -> [At; 4]) -> Parts {
        Parts::new(updates.iter().map(|u| {
            let teacher = u.teacher.as_ref().map_or(NULL, |t| t.device_mut());
            (u.parameter.len, u.gradient.device(), u.parameter.device_mut(), state(&u.state), teacher)
        }))
    }
}

/// What a teacher keeps of itself and takes of its student.
fn weights(momentum: f64) -> [f32; 2] {
    [momentum as f32, (1.0 - momentum) as f32]
}

/// Norm over all values of all tensors.
pub fn global_norm(tensors: &[Tensor], norm: &Buffer) -> Result<()> {
    let parts = Parts::new(tensors.iter().map(|t| (t.len, t.device(), NULL, [NULL; 4], NULL)));
    let partial = gpu::scratch::<f64>(parts.grid[0]);
    launch!("optimizer_squares", parts.grid, 256, 2048, parts.table.at(), parts.count as i32, partial.at())?;
    launch!("optimizer_norm", [1; 3], 256, 2048, partial.at(), parts.grid[0] as i32, norm.device_mut())
}

/// As `cpu::sgd`, clipped.
pub fn sgd(rule: &Sgd, norm: &Buffer, clip: f32, updates: &[Update<Tensor>], keep: f64) -> Result<()> {
    let &Sgd { lr, momentum, nesterov, weight_decay } = rule;
    let parts = Parts::of(updates, |state| [state.device_mut(), NULL, NULL, NULL]);
    let (table, count, nesterov) = (parts.table.at(), parts.count as i32, nesterov as i32);
    let (norm, grid, [keep, take]) = (norm.device(), parts.grid, weights(keep));
    launch!("optimizer_sgd", grid, 256, 0, norm, clip, table, count, lr, momentum, nesterov, weight_decay, keep, take)
}

/// As `cpu::adamw`, clipped.
pub fn adamw(rule: &AdamW, norm: &Buffer, clip: f32, updates: &[Update<Moments>], keep: f64) -> Result<()> {
    let &AdamW { lr, beta1, beta2, eps, weight_decay } = rule;
    let parts = Parts::of(updates, |Moments { first, second, largest, step }| {
        let largest = largest.as_ref().map_or(NULL, |t| t.device_mut());
        [first.device_mut(), second.device_mut(), largest, step.device_mut()]
    });
    let (table, count, norm) = (parts.table.at(), parts.count as i32, norm.device());
    let steps = gpu::scratch::<[u8; STEP]>(parts.count);
    let each = gpu::one_each(parts.count);
    launch!("optimizer_begin", each, 256, 0, norm, table, count, lr, beta1, beta2, steps.at())?;
    let ([keep, take], [keep1, take1], [keep2, take2]) = (weights(keep), weights(beta1), weights(beta2));
    let (decay, eps, at, grid) = ((1.0 - lr * weight_decay) as f32, eps as f32, steps.at(), parts.grid);
    launch!(
        "optimizer_adamw",
        grid,
        256,
        0,
        norm,
        clip,
        table,
        count,
        at,
        keep1,
        take1,
        keep2,
        take2,
        decay,
        eps,
        keep,
        take
    )
}

/// As `cpu::ema`, of pairs of teacher and student.
pub fn ema(pairs: &[(Tensor, Tensor)], momentum: f64) -> Result<()> {
    let parts = Parts::new(pairs.iter().map(|(t, s)| (t.len, s.device(), NULL, [NULL; 4], t.device_mut())));
    let [keep, take] = weights(momentum);
    launch!("optimizer_ema", parts.grid, 256, 0, parts.table.at(), parts.count as i32, keep, take)
}
