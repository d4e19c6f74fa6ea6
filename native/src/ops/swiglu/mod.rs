//! The gated unit of a SwiGLU layer.
//!
//! Contract. y = silu(gate) * value, silu(x) = x * s(x), s(x) = 1 / (1 + exp(-x)); dvalue = dy * silu(gate),
//! dgate = dy * value * s * (1 + gate * (1 - s)).

pub mod launch;

use super::activation::sigmoid;
use super::rows;
use crate::element::Element;
use crate::wide;
use crate::{gpu, queue, tensor};

wide! {
    fn gated<E: Element>(gate: &[E], value: &[E], y: &mut [E]) {
        for ((y, g), v) in y.iter_mut().zip(gate).zip(value) {
            let g = g.to_f32();
            *y = E::from_f32(g * sigmoid(g) * v.to_f32());
        }
    }
}

wide! {
    fn grad_gate<E: Element>(gate: &[E], value: &[E], dy: &[E], dgate: &mut [E]) {
        for (dgate, ((g, v), dy)) in dgate.iter_mut().zip(gate.iter().zip(value).zip(dy)) {
            let g = g.to_f32();
            let s = sigmoid(g);
            *dgate = E::from_f32(dy.to_f32() * v.to_f32() * s * (1.0 + g * (1.0 - s)));
        }
    }
}

exports! {
    /// silu(gate) * value.
    fn vx_swiglu(gate: u32, value: u32, len: u32) {
        let gate = tensor::either(gate, len as usize, "SwiGLU gate")?;
        let value = tensor::get_as(value, len as usize, "SwiGLU value", gate.dtype)?;
        let (y, handle) = tensor::make_as(len as usize, gate.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(&gate, &value, &y);
            }
            by_dtype!(gate.dtype, E => rows::each(y.of_mut::<E>(), |at, y| {
                gated(&gate.of::<E>()[at..], &value.of::<E>()[at..], y);
            }));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the gate.
    fn vx_swiglu_grad_gate(gate: u32, value: u32, dy: u32, len: u32) {
        let gate = tensor::either(gate, len as usize, "SwiGLU gate")?;
        let value = tensor::get_as(value, len as usize, "SwiGLU value", gate.dtype)?;
        let dy = tensor::get_as(dy, len as usize, "SwiGLU gradient", gate.dtype)?;
        let (dgate, handle) = tensor::make_as(len as usize, gate.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_gate(&gate, &value, &dy, &dgate);
            }
            by_dtype!(gate.dtype, E => rows::each(dgate.of_mut::<E>(), |at, dgate| {
                grad_gate(&gate.of::<E>()[at..], &value.of::<E>()[at..], &dy.of::<E>()[at..], dgate);
            }));
            Ok(())
        });
        Ok(handle)
    }
}
