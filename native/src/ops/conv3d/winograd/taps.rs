//! Weights between their own layout, 27 neighbouring taps for each pair of channels, and one vector per tap with the
//! channels in its lanes: a transposition in registers, several times faster than one value at a time.

use super::vector::Vector;

/// Taps of a 3x3x3 kernel.
pub const TAPS: usize = 27;

/// The taps of the first `n` of `LANES` channels, which lie `stride` values apart; the other lanes are zero.
#[inline(always)]
pub unsafe fn load<V: Vector>(from: *const f32, stride: usize, n: usize) -> [V; TAPS] {
    unsafe {
        let mut out = [V::splat(0.0); TAPS];
        #[cfg(target_arch = "x86_64")]
        if V::LANES == 16 {
            let rows = |start: usize| -> [V; 16] {
                std::array::from_fn(|i| if i < n { V::load(from.add(i * stride + start)) } else { V::splat(0.0) })
            };
            out[..16].copy_from_slice(&V::transposed(rows(0)));
            out[16..].copy_from_slice(&V::transposed(rows(TAPS - 16))[32 - TAPS..]);
            return out;
        }
        let mut lanes = [[0f32; 16]; TAPS];
        for i in 0..n.min(V::LANES) {
            for (t, lanes) in lanes.iter_mut().enumerate() {
                lanes[i] = *from.add(i * stride + t);
            }
        }
        for (value, lanes) in out.iter_mut().zip(&lanes) {
            *value = V::load(lanes.as_ptr());
        }
        out
    }
}

/// The inverse: writes the first `n` lanes only.
#[inline(always)]
pub unsafe fn store<V: Vector>(values: &[V; TAPS], to: *mut f32, stride: usize, n: usize) {
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if V::LANES == 16 {
            let low = V::transposed(std::array::from_fn(|t| values[t]));
            let high = V::transposed(std::array::from_fn(|t| values[t + TAPS - 16]));
            for i in 0..n.min(16) {
                low[i].store(to.add(i * stride));
                high[i].store(to.add(i * stride + TAPS - 16));
            }
            return;
        }
        let mut lanes = [[0f32; 16]; TAPS];
        for (value, lanes) in values.iter().zip(&mut lanes) {
            value.store(lanes.as_mut_ptr());
        }
        for i in 0..n.min(V::LANES) {
            for (t, lanes) in lanes.iter().enumerate() {
                *to.add(i * stride + t) = lanes[i];
            }
        }
    }
}
