//! Element-wise nonlinearities.
//!
//! Contract. leaky: y = x where x > 0, else slope * x; dx = dy where x > 0, else slope * dy (y has the sign of x for
//! slopes from 0 on). silu: y = x * s(x), s(x) = 1 / (1 + exp(-x)); dx = dy * s * (1 + x * (1 - s)).

use super::rows;
use crate::element::Element;
use crate::gpu::{self, over, typed};
use crate::wide;
use crate::{launch, queue, tensor};

/// exp(x) in f32 to 2 ulp by 2^n * exp(r), |r| <= ln 2 / 2, with the Taylor polynomial of degree 7; vectorises.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + 12582912.0; // rounds to an integer, which its low bits hold
    let n = shifted - 12582912.0;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4; // ln 2 in two parts
    let mut p = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + factor;
    }
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits())) // a cast would not vectorise
}

#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

wide! {
    /// dy where sign is positive, else slope * dy.
    fn leaky_grad<E: Element>(sign: &[E], dy: &[E], slope: f32, dx: &mut [E]) {
        for ((dx, s), dy) in dx.iter_mut().zip(sign).zip(dy) {
            let dy = dy.to_f32();
            *dx = E::from_f32(if s.to_f32() > 0.0 { dy } else { slope * dy });
        }
    }
}

wide! {
    fn silu<E: Element>(x: &[E], y: &mut [E]) {
        for (y, x) in y.iter_mut().zip(x) {
            let x = x.to_f32();
            *y = E::from_f32(x * sigmoid(x));
        }
    }
}

wide! {
    fn silu_grad<E: Element>(x: &[E], dy: &[E], dx: &mut [E]) {
        for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
            let x = x.to_f32();
            let s = sigmoid(x);
            *dx = E::from_f32(dy.to_f32() * s * (1.0 + x * (1.0 - s)));
        }
    }
}

exports! {
    /// LeakyReLU.
    fn vx_leaky(x: u32, len: u32, slope: f32) {
        let x = tensor::either(x, len as usize, "activation input")?;
        let (y, handle) = tensor::make_as(len as usize, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                let (n, to) = (len as i64, y.device_mut());
                return launch!(typed("activation_leaky", x.dtype), over(len as usize), 256, 0, x.device(), slope, n, to);
            }
            by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                rows::each(y.of_mut::<E>(), |at, y| {
                    for (y, x) in y.iter_mut().zip(&x[at..]) {
                        let x = x.to_f32();
                        *y = E::from_f32(if x > 0.0 { x } else { slope * x });
                    }
                })
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of LeakyReLU from its input or output (their signs agree).
    fn vx_leaky_grad(sign: u32, dy: u32, len: u32, slope: f32) {
        let sign = tensor::either(sign, len as usize, "activation input")?;
        let dy = tensor::get_as(dy, len as usize, "activation gradient", sign.dtype)?;
        let (dx, handle) = tensor::make_as(len as usize, sign.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                let (n, to) = (len as i64, dx.device_mut());
                return launch!(typed("activation_leaky_grad", sign.dtype), over(len as usize), 256, 0, sign.device(), dy.device(), slope, n, to);
            }
            by_dtype!(sign.dtype, E => {
                let (sign, dy) = (sign.of::<E>(), dy.of::<E>());
                rows::each(dx.of_mut::<E>(), |at, dx| {
                    leaky_grad(&sign[at..], &dy[at..], slope, dx)
                })
            });
            Ok(())
        });
        Ok(handle)
    }
    /// SiLU.
    fn vx_silu(x: u32, len: u32) {
        let x = tensor::either(x, len as usize, "activation input")?;
        let (y, handle) = tensor::make_as(len as usize, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                let (n, to) = (len as i64, y.device_mut());
                return launch!(typed("activation_silu", x.dtype), over(len as usize), 256, 0, x.device(), n, to);
            }
            by_dtype!(x.dtype, E => {
                let x = x.of::<E>();
                rows::each(y.of_mut::<E>(), |at, y| silu(&x[at..], y))
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of SiLU from its input.
    fn vx_silu_grad(x: u32, dy: u32, len: u32) {
        let x = tensor::either(x, len as usize, "activation input")?;
        let dy = tensor::get_as(dy, len as usize, "activation gradient", x.dtype)?;
        let (dx, handle) = tensor::make_as(len as usize, x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                let (n, to) = (len as i64, dx.device_mut());
                return launch!(typed("activation_silu_grad", x.dtype), over(len as usize), 256, 0, x.device(), dy.device(), n, to);
            }
            by_dtype!(x.dtype, E => {
                let (x, dy) = (x.of::<E>(), dy.of::<E>());
                rows::each(dx.of_mut::<E>(), |at, dx| silu_grad(&x[at..], &dy[at..], dx))
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
