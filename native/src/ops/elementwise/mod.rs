//! Values added, scaled and weighed: the small operations between the large ones.

use crate::{queue, tensor};
use rayon::prelude::*;

/// Values per task: large enough to pay for a task, small enough for the cache.
const STRETCH: usize = 1 << 14;

exports! {
    /// target += source
    fn vx_add_into(target: u32, source: u32, len: u32) {
        let target = tensor::get(target, len as usize, "sum")?;
        let source = tensor::get(source, len as usize, "term")?;
        queue::enqueue(move || {
            let pairs = target.values_mut().par_chunks_mut(STRETCH).zip(source.values().par_chunks(STRETCH));
            pairs.for_each(|(t, s)| t.iter_mut().zip(s).for_each(|(t, s)| *t += s));
            Ok(())
        });
        Ok(0.0)
    }
    /// a * u + b * v for tensors u, v of one length.
    fn vx_linear_combination(a: f32, u: u32, b: f32, v: u32, len: u32) {
        let u = tensor::get(u, len as usize, "first term")?;
        let v = tensor::get(v, len as usize, "second term")?;
        let (y, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let (u, v) = (u.values(), v.values());
            y.values_mut().par_chunks_mut(STRETCH).enumerate().for_each(|(i, y)| {
                let at = i * STRETCH;
                y.iter_mut().enumerate().for_each(|(j, y)| *y = a * u[at + j] + b * v[at + j]);
            });
            Ok(())
        });
        Ok(handle)
    }
    /// a * u
    fn vx_scale(a: f32, u: u32, len: u32) {
        let u = tensor::get(u, len as usize, "input")?;
        let (y, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let pairs = y.values_mut().par_chunks_mut(STRETCH).zip(u.values().par_chunks(STRETCH));
            pairs.for_each(|(y, u)| y.iter_mut().zip(u).for_each(|(y, u)| *y = a * u));
            Ok(())
        });
        Ok(handle)
    }
}
