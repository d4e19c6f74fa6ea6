//! Element-wise nonlinearities.
//!
//! Contract. leaky: y = x where x > 0, else slope * x; dx = dy where x > 0, else slope * dy (y has the sign of x for
//! slopes from 0 on). silu: y = x * s(x), s(x) = 1 / (1 + exp(-x)); dx = dy * s * (1 + x * (1 - s)).

use super::rows;
use crate::{queue, tensor};

/// exp(x) in f32 to 2 ulp by 2^n * exp(r), |r| <= ln 2 / 2, with the Taylor polynomial of degree 7; vectorises.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + 12582912.0) - 12582912.0; // rounds to an integer
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4; // ln 2 in two parts
    let mut p = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + factor;
    }
    p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

exports! {
    /// LeakyReLU.
    fn vx_leaky(x: u32, len: u32, slope: f32) {
        let x = tensor::get(x, len as usize, "activation input")?;
        let (y, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let x = x.values();
            rows::each(y.values_mut(), |at, y| {
                y.iter_mut().zip(&x[at..]).for_each(|(y, &x)| *y = if x > 0.0 { x } else { slope * x });
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of LeakyReLU from its input or output (their signs agree).
    fn vx_leaky_grad(sign: u32, dy: u32, len: u32, slope: f32) {
        let sign = tensor::get(sign, len as usize, "activation input")?;
        let dy = tensor::get(dy, len as usize, "activation gradient")?;
        let (dx, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let (sign, dy) = (sign.values(), dy.values());
            rows::each(dx.values_mut(), |at, dx| {
                let pairs = dx.iter_mut().zip(&sign[at..]).zip(&dy[at..]);
                pairs.for_each(|((dx, &s), &dy)| *dx = if s > 0.0 { dy } else { slope * dy });
            });
            Ok(())
        });
        Ok(handle)
    }
    /// SiLU.
    fn vx_silu(x: u32, len: u32) {
        let x = tensor::get(x, len as usize, "activation input")?;
        let (y, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let x = x.values();
            rows::each(y.values_mut(), |at, y| {
                y.iter_mut().zip(&x[at..]).for_each(|(y, &x)| *y = x * sigmoid(x));
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of SiLU from its input.
    fn vx_silu_grad(x: u32, dy: u32, len: u32) {
        let x = tensor::get(x, len as usize, "activation input")?;
        let dy = tensor::get(dy, len as usize, "activation gradient")?;
        let (dx, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let (x, dy) = (x.values(), dy.values());
            rows::each(dx.values_mut(), |at, dx| {
                for ((dx, &x), &dy) in dx.iter_mut().zip(&x[at..]).zip(&dy[at..]) {
                    let s = sigmoid(x);
                    *dx = dy * s * (1.0 + x * (1.0 - s));
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
    fn exp_is_accurate() {
        for i in -8000..8000 {
            let x = i as f32 * 0.01;
            let want = (x as f64).exp();
            assert!((super::exp(x) as f64 - want).abs() <= 3e-7 * want, "{x}");
        }
    }
}
