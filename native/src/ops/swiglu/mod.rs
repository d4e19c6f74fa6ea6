//! The gated unit of a SwiGLU layer.
//!
//! Contract. y = silu(gate) * value, silu(x) = x * s(x), s(x) = 1 / (1 + exp(-x)); dvalue = dy * silu(gate),
//! dgate = dy * value * s * (1 + gate * (1 - s)).

use super::activation::sigmoid;
use super::rows;
use crate::{queue, tensor};

exports! {
    /// silu(gate) * value.
    fn vx_swiglu(gate: u32, value: u32, len: u32) {
        let gate = tensor::get(gate, len as usize, "SwiGLU gate")?;
        let value = tensor::get(value, len as usize, "SwiGLU value")?;
        let (y, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let (gate, value) = (gate.values(), value.values());
            rows::each(y.values_mut(), |at, y| {
                for ((y, &g), &v) in y.iter_mut().zip(&gate[at..]).zip(&value[at..]) {
                    *y = g * sigmoid(g) * v;
                }
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the gate.
    fn vx_swiglu_grad_gate(gate: u32, value: u32, dy: u32, len: u32) {
        let gate = tensor::get(gate, len as usize, "SwiGLU gate")?;
        let value = tensor::get(value, len as usize, "SwiGLU value")?;
        let dy = tensor::get(dy, len as usize, "SwiGLU gradient")?;
        let (dgate, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let (gate, value, dy) = (gate.values(), value.values(), dy.values());
            rows::each(dgate.values_mut(), |at, dgate| {
                let inputs = gate[at..].iter().zip(&value[at..]).zip(&dy[at..]);
                for (dgate, ((&g, &v), &dy)) in dgate.iter_mut().zip(inputs) {
                    let s = sigmoid(g);
                    *dgate = dy * v * s * (1.0 + g * (1.0 - s));
                }
            });
            Ok(())
        });
        Ok(handle)
    }
}
