//! Optimizer steps in place: SGD with Nesterov momentum, AdamW, and the exponential moving average of a teacher, which
//! the same pass over memory moves.
//!
//! Contract. Parameter, gradient and state tensors have one length. The update is torch.optim.SGD (dampening 0) and
//! torch.optim.AdamW (with amsgrad where its state is given) on gradients clipped as torch.nn.utils.clip_grad_norm_: times
//! min(1, clip / (norm + 1e-6)), where `norm` is the tensor that `vx_global_norm` made, so the host never waits.
//! State begins as zeros. A norm that is not finite changes no parameter and no state: the run can stop and report
//! with its last good weights.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::abi::Result;
use crate::ops::linear::factors::Factors;
use crate::tensor::Tensor;
use crate::{gpu, queue, tensor};
use cpu::Gradient;
use rayon::prelude::*;

/// Factor of the gradients; None when the norm is not finite.
pub fn clip_factor(norm: f32, clip: f32) -> Option<f32> {
    norm.is_finite().then(|| (clip as f64 / (norm as f64 + 1e-6)).min(1.0) as f32)
}

/// What moves one parameter, and the teacher that then follows it.
pub struct Update<S> {
    pub parameter: Tensor,
    pub gradient: Tensor,
    pub state: S,
    pub teacher: Option<Tensor>,
}

/// State of AdamW: moments, the largest second moment of amsgrad, and how many steps were taken.
pub struct Moments {
    pub first: Tensor,
    pub second: Tensor,
    pub largest: Option<Tensor>,
    pub step: Tensor,
}

/// Checks handles: as many gradients and teachers (or 0) as parameters, `N` tensors of state for each, all of the
/// parameter's length.
fn updates<const N: usize, S>(
    [parameters, gradients, states, teachers]: [&[u32]; 4],
    state: impl Fn(&[u32; N], usize) -> Result<S>,
) -> Result<Vec<Update<S>>> {
    let (states, rest) = states.as_chunks::<N>();
    if !rest.is_empty() || [states.len(), gradients.len(), teachers.len()] != [parameters.len(); 3] {
        let count = parameters.len();
        return Err(format!("{count} parameters need one gradient, {N} tensors of state and one teacher or 0 each"));
    }
    let handles = parameters.iter().zip(gradients).zip(states.iter().zip(teachers));
    let update = |((&parameter, &gradient), (handles, &teacher)): ((&u32, &u32), (&[u32; N], &u32))| {
        let len = tensor::any(parameter)?.len;
        Ok(Update {
            parameter: tensor::get(parameter, len, "parameter")?,
            gradient: tensor::get(gradient, len, "gradient")?,
            state: state(handles, len)?,
            teacher: optional(teacher, len, "teacher")?,
        })
    };
    handles.map(update).collect()
}

/// The tensor of a handle that may be 0.
fn optional(handle: u32, len: usize, name: &str) -> Result<Option<Tensor>> {
    (handle != 0).then(|| tensor::get(handle, len, name)).transpose()
}

/// What a teacher is to the updates on the CPU.
fn following(teacher: &Option<Tensor>, momentum: f64) -> Option<cpu::Teacher<'_>> {
    teacher.as_ref().map(|t| cpu::Teacher { values: t.values_mut(), momentum })
}

exports! {
    /// Norm over all values of the tensors, as a tensor of one value. Sums in f64 over a fixed partition.
    fn vx_global_norm(tensors: slice[u32]) {
        let tensors = tensors.iter().map(|&t| tensor::get(t, tensor::any(t)?.len, "gradient")).collect::<Result<Vec<_>>>()?;
        let (norm, handle) = tensor::make(1);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::global_norm(&tensors, &norm);
            }
            let factors: Vec<&Factors> = tensors.iter().filter_map(|t| t.factors()).collect();
            let layers = factors.par_chunk_by(|a, b| a.shares(b)).map(Factors::sum_of_squares);
            let whole = tensors.par_iter().filter(|t| t.factors().is_none()).map(|t| cpu::sum_of_squares(t.values()));
            let sum: f64 = layers.chain(whole).collect::<Vec<_>>().into_iter().sum();
            norm.values_mut()[0] = sum.sqrt() as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// One step of SGD with weight decay and Nesterov (or plain) momentum, of all `parameters`; one momentum each.
    /// A teacher each, or 0, then moves as by `vx_ema` with momentum `keep`.
    fn vx_sgd_step(parameters: slice[u32], gradients: slice[u32], momenta: slice[u32], teachers: slice[u32], norm: u32, lr: f64, clip: f32, momentum: f64, nesterov: bool, weight_decay: f64, keep: f64) {
        let lists = [parameters, gradients, momenta, teachers];
        let updates = updates(lists, |&[state], len| tensor::get(state, len, "momentum"))?;
        let norm = tensor::get(norm, 1, "gradient norm")?;
        let rule = cpu::Sgd { lr: lr as f32, momentum: momentum as f32, nesterov, weight_decay: weight_decay as f32 };
        queue::enqueue(move || {
            if gpu::active() {
                return launch::sgd(&rule, &norm, clip, &updates, keep);
            }
            let Some(factor) = clip_factor(norm.values()[0], clip) else { return Ok(()) };
            for Update { parameter, gradient, state, teacher } in &updates {
                let teacher = following(teacher, keep);
                cpu::sgd(&rule, factor, parameter.values_mut(), gradient.values(), state.values_mut(), teacher);
            }
            Ok(())
        });
        Ok(0.0)
    }
    /// One step of AdamW of all `parameters`. Four states each: first moment, second moment, largest second moment of
    /// amsgrad or 0, and a tensor of one value that counts the steps taken. A teacher each, or 0, then moves as by
    /// `vx_ema` with momentum `keep`.
    fn vx_adamw_step(parameters: slice[u32], gradients: slice[u32], states: slice[u32], teachers: slice[u32], norm: u32, lr: f64, clip: f32, beta1: f64, beta2: f64, eps: f64, weight_decay: f64, keep: f64) {
        let updates = updates([parameters, gradients, states, teachers], |&[first, second, largest, step], len| {
            Ok(Moments {
                first: tensor::get(first, len, "first moment")?,
                second: tensor::get(second, len, "second moment")?,
                largest: optional(largest, len, "largest second moment")?,
                step: tensor::get(step, 1, "step count")?,
            })
        })?;
        let norm = tensor::get(norm, 1, "gradient norm")?;
        let rule = cpu::AdamW { lr, beta1, beta2, eps, weight_decay };
        queue::enqueue(move || {
            if gpu::active() {
                return launch::adamw(&rule, &norm, clip, &updates, keep);
            }
            let Some(factor) = clip_factor(norm.values()[0], clip) else { return Ok(()) };
            updates.par_iter().for_each(|Update { parameter, gradient, state, teacher }| {
                let Moments { first, second, largest, step } = state;
                step.values_mut()[0] += 1.0;
                let rule = rule.at(step.values()[0], factor);
                let state = (first.values_mut(), second.values_mut(), largest.as_ref().map(|t| t.values_mut()));
                let gradient = match gradient.factors() {
                    Some(factors) => Gradient::Factors(factors),
                    None => Gradient::Values(gradient.values()),
                };
                cpu::adamw(rule, parameter.values_mut(), gradient, state, following(teacher, keep));
            });
            Ok(())
        });
        Ok(0.0)
    }
    /// teacher = momentum * teacher + (1 - momentum) * student, of all pairs; momentum 0 copies.
    fn vx_ema(teachers: slice[u32], students: slice[u32], momentum: f64) {
        if teachers.len() != students.len() {
            return Err(format!("{} teachers have {} students", teachers.len(), students.len()));
        }
        let pair = |(&teacher, &student): (&u32, &u32)| {
            let len = tensor::any(teacher)?.len;
            Ok((tensor::get(teacher, len, "teacher")?, tensor::get(student, len, "student")?))
        };
        let pairs = teachers.iter().zip(students).map(pair).collect::<Result<Vec<_>>>()?;
        queue::enqueue(move || {
            if gpu::active() {
                return launch::ema(&pairs, momentum);
            }
            for (teacher, student) in &pairs {
                cpu::ema(cpu::Teacher { values: teacher.values_mut(), momentum }, student.values());
            }
            Ok(())
        });
        Ok(0.0)
    }
}
