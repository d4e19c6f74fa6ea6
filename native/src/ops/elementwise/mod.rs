//! Values added, scaled and weighed: the small operations between the large ones.

use super::rows;
use crate::element::Element;
use crate::gpu::{self, NULL, over, typed};
use crate::wide;
use crate::{launch, queue, tensor};

wide! {
    /// target += source
    fn add<E: Element>(source: &[E], target: &mut [E]) {
        target.iter_mut().zip(source).for_each(|(t, s)| *t = E::from_f32(t.to_f32() + s.to_f32()));
    }
}

exports! {
    /// target += source, of one type
    fn vx_add_into(target: u32, source: u32, len: u32) {
        let target = tensor::either(target, len as usize, "sum")?;
        let source = tensor::get_as(source, len as usize, "term", target.dtype)?;
        queue::enqueue(move || {
            if gpu::active() {
                let (t, s, n) = (target.device_mut(), source.device(), len as i64);
                return launch!(typed("combine", target.dtype), over(len as usize), 256, 0, 1f32, t, 1f32, s, n, t);
            }
            by_dtype!(target.dtype, E => {
                let source = source.of::<E>();
                rows::each(target.of_mut::<E>(), |at, t| {
                    add(&source[at..], t)
                })
            });
            Ok(())
        });
        Ok(0.0)
    }
    /// a * u + b * v for tensors u, v of one length and type.
    fn vx_linear_combination(a: f32, u: u32, b: f32, v: u32, len: u32) {
        let u = tensor::either(u, len as usize, "first term")?;
        let v = tensor::get_as(v, len as usize, "second term", u.dtype)?;
        let (y, handle) = tensor::make_as(len as usize, u.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                let (n, y) = (len as i64, y.device_mut());
                return launch!(typed("combine", u.dtype), over(len as usize), 256, 0, a, u.device(), b, v.device(), n, y);
            }
            by_dtype!(u.dtype, E => {
                let (u, v) = (u.of::<E>(), v.of::<E>());
                rows::each(y.of_mut::<E>(), |at, y| {
                    let pairs = u[at..].iter().zip(&v[at..]);
                    y.iter_mut().zip(pairs).for_each(|(y, (u, v))| *y = E::from_f32(a * u.to_f32() + b * v.to_f32()));
                })
            });
            Ok(())
        });
        Ok(handle)
    }
    /// a * u
    fn vx_scale(a: f32, u: u32, len: u32) {
        let u = tensor::either(u, len as usize, "input")?;
        let (y, handle) = tensor::make_as(len as usize, u.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                let (n, y) = (len as i64, y.device_mut());
                return launch!(typed("combine", u.dtype), over(len as usize), 256, 0, a, u.device(), 0f32, NULL, n, y);
            }
            by_dtype!(u.dtype, E => {
                let u = u.of::<E>();
                rows::each(y.of_mut::<E>(), |at, y| {
                    y.iter_mut().zip(&u[at..]).for_each(|(y, u)| *y = E::from_f32(a * u.to_f32()));
                })
            });
            Ok(())
        });
        Ok(handle)
    }
}
