//! Optimizer steps in place: SGD with Nesterov momentum, AdamW, and the exponential moving average of a teacher.
//!
//! Contract. Parameter, gradient and state tensors have one length. The update is torch.optim.SGD (dampening 0) and
//! torch.optim.AdamW (with amsgrad where its state is given) on gradients clipped as torch.nn.utils.clip_grad_norm_: times
//! min(1, clip / (norm + 1e-6)), where `norm` is the tensor that `vx_global_norm` made, so the host never waits.
//! State begins as zeros. A norm that is not finite changes no parameter and no state: the run can stop and report
//! with its last good weights.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::{gpu, queue, tensor};

/// Factor of the gradients; None when the norm is not finite.
pub fn clip_factor(norm: f32, clip: f32) -> Option<f32> {
    norm.is_finite().then(|| (clip as f64 / (norm as f64 + 1e-6)).min(1.0) as f32)
}

exports! {
    /// Norm over all values of the tensors, as a tensor of one value. Sums in f64 over a fixed partition.
    fn vx_global_norm(tensors: slice[u32]) {
        let tensors = tensors.iter().map(|&t| tensor::get(t, tensor::any(t)?.len, "gradient")).collect::<crate::abi::Result<Vec<_>>>()?;
        let (norm, handle) = tensor::make(1);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::global_norm(&tensors, &norm);
            }
            let sum: f64 = tensors.iter().map(|t| cpu::sum_of_squares(t.values())).sum();
            norm.values_mut()[0] = sum.sqrt() as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// One step of SGD with weight decay and Nesterov (or plain) momentum.
    fn vx_sgd_step(parameter: u32, gradient: u32, momentum_state: u32, norm: u32, len: u32, lr: f64, clip: f32, momentum: f64, nesterov: bool, weight_decay: f64) {
        let len = len as usize;
        let parameter = tensor::get(parameter, len, "parameter")?;
        let gradient = tensor::get(gradient, len, "gradient")?;
        let state = tensor::get(momentum_state, len, "momentum")?;
        let norm = tensor::get(norm, 1, "gradient norm")?;
        let rule = cpu::Sgd { lr: lr as f32, momentum: momentum as f32, nesterov, weight_decay: weight_decay as f32 };
        queue::enqueue(move || {
            if gpu::active() {
                return launch::sgd(&rule, &norm, clip, &parameter, &gradient, &state);
            }
            if let Some(factor) = clip_factor(norm.values()[0], clip) {
                cpu::sgd(&rule, factor, parameter.values_mut(), gradient.values(), state.values_mut());
            }
            Ok(())
        });
        Ok(0.0)
    }
    /// One step of AdamW; `step` is a tensor of one value that counts the steps taken; max_exp_avg_sq: 0, or the state of
    /// amsgrad.
    fn vx_adamw_step(parameter: u32, gradient: u32, exp_avg: u32, exp_avg_sq: u32, max_exp_avg_sq: u32, step: u32, norm: u32, len: u32, lr: f64, clip: f32, beta1: f64, beta2: f64, eps: f64, weight_decay: f64) {
        let len = len as usize;
        let parameter = tensor::get(parameter, len, "parameter")?;
        let gradient = tensor::get(gradient, len, "gradient")?;
        let exp_avg = tensor::get(exp_avg, len, "first moment")?;
        let exp_avg_sq = tensor::get(exp_avg_sq, len, "second moment")?;
        let largest = match max_exp_avg_sq {
            0 => None,
            handle => Some(tensor::get(handle, len, "largest second moment")?),
        };
        let step = tensor::get(step, 1, "step count")?;
        let norm = tensor::get(norm, 1, "gradient norm")?;
        let rule = cpu::AdamW { lr, beta1, beta2, eps, weight_decay };
        queue::enqueue(move || {
            if gpu::active() {
                return launch::adamw(&rule, &norm, clip, &parameter, &gradient, (&exp_avg, &exp_avg_sq, &largest, &step));
            }
            if let Some(factor) = clip_factor(norm.values()[0], clip) {
                step.values_mut()[0] += 1.0;
                let state = (exp_avg.values_mut(), exp_avg_sq.values_mut(), largest.as_ref().map(|t| t.values_mut()));
                cpu::adamw(&rule, step.values()[0], factor, parameter.values_mut(), gradient.values(), state);
            }
            Ok(())
        });
        Ok(0.0)
    }
    /// teacher = momentum * teacher + (1 - momentum) * student; momentum 0 copies.
    fn vx_ema(teacher: u32, student: u32, len: u32, momentum: f64) {
        let teacher = tensor::get(teacher, len as usize, "teacher")?;
        let student = tensor::get(student, len as usize, "student")?;
        queue::enqueue(move || {
            if gpu::active() {
                return launch::ema(&teacher, &student, momentum);
            }
            cpu::ema(teacher.values_mut(), student.values(), momentum);
            Ok(())
        });
        Ok(0.0)
    }
}
