//! The random numbers of `lib/rng.ts`, for where there are many: initial weights.

use crate::{queue, tensor};

/// sfc32 of Chris Doty-Humphrey's PractRand.
struct Sfc32([u32; 4]);

impl Sfc32 {
    #[inline(always)]
    fn bits(&mut self) -> u32 {
        let [a, b, c, d] = self.0;
        let t = a.wrapping_add(b).wrapping_add(d);
        self.0 = [b ^ (b >> 9), c.wrapping_add(c << 3), c.rotate_left(21).wrapping_add(t), d.wrapping_add(1)];
        t
    }
}

exports! {
    /// A new f32 tensor of `len` numbers uniform in [low, high): those that an Rng in the state a, b, c, d draws next.
    fn vx_tensor_uniform(len: u32, a: u32, b: u32, c: u32, d: u32, low: f64, high: f64) {
        let (out, handle) = tensor::make(len as usize);
        queue::enqueue(move || {
            let mut rng = Sfc32([a, b, c, d]);
            for value in out.values_mut() {
                *value = (low + (high - low) * (rng.bits() as f64 / 4_294_967_296.0)) as f32;
            }
            Ok(())
        });
        Ok(handle)
    }
}
