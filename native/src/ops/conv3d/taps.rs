//! Weights between their own layout, 27 neighbouring taps for each pair of channels, and one vector per tap with the
//! channels in its lanes: a transposition in registers, several times faster than one value at a time.

use super::product::PANEL;
use super::vector::Vector;
use super::winograd::{into_l2, soon};
use crate::ops::rows;
use std::slice::Chunks;

/// Taps of a 3x3x3 kernel.
pub const TAPS: usize = 27;

/// Weights as they are given. Strides are in values of `w`.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub w: &'a [f32],
    pub c_in: usize,
    pub c_out: usize,
    /// Distance of two input channels, and of two output channels.
    pub stride: (usize, usize),
    /// Mirrors the taps, for the data gradient.
    pub flip: bool,
}

impl Given<'_> {
    /// The taps of input channel `c` and a vector of output channels from `first` on; zero where there are no such channels. What
    /// lies `next` values on is asked for.
    #[inline(always)]
    pub unsafe fn taps<V: Vector>(&self, c: usize, first: usize, next: Option<usize>) -> [V; TAPS] {
        unsafe {
            if c >= self.c_in || first >= self.c_out {
                return [V::splat(0.0); TAPS];
            }
            let from = self.w[c * self.stride.0 + first * self.stride.1..].as_ptr();
            if let Some(next) = next {
                for i in 0..V::LANES {
                    let next = from.wrapping_add(next + i * self.stride.1);
                    [0, 16, TAPS - 1].into_iter().for_each(|t| soon(next.wrapping_add(t)));
                }
            }
            let mut g = load::<V>(from, self.stride.1, self.c_out - first);
            if self.flip {
                g.reverse();
            }
            g
        }
    }
}

impl Given<'_> {
    /// Where the cache lines of the first `c` input channels for the first `outputs` output channels lie.
    pub fn lines(&self, c: usize, outputs: usize) -> Vec<u32> {
        // Along the channels that lie side by side.
        let (rows, row, length) =
            if self.stride.0 == TAPS { (outputs, self.stride.1, c) } else { (c, self.stride.0, outputs) };
        let line = |r: usize| (0..length * TAPS).step_by(16).map(move |i| (r * row + i) as u32);
        (0..rows).flat_map(line).collect()
    }
    /// Asks for `lines` from input channel `c` and output channel `first` on, `step` of them per call of `Soon::fetch`; of the next
    /// `panel` where there are no such input channels.
    pub fn soon<'a>(&self, c: usize, first: usize, lines: &'a [u32], step: usize) -> Soon<'a> {
        let (c, first) = if c < self.c_in { (c, first) } else { (0, first + PANEL) };
        let lines = if first < self.c_out { lines.chunks(step) } else { [].chunks(1) };
        Soon { from: self.w.as_ptr().wrapping_add(c * self.stride.0 + first * self.stride.1), lines }
    }
}

/// Weights that come into the L2 cache while something else is computed.
pub struct Soon<'a> {
    from: *const f32,
    lines: Chunks<'a, u32>,
}

impl Soon<'_> {
    #[inline(always)]
    pub fn fetch(&mut self) {
        for line in self.lines.next().unwrap_or_default() {
            into_l2(self.from.wrapping_add(*line as usize).cast());
        }
    }
}

/// Where a gradient of weights goes, as `Given` says where weights lie.
#[derive(Clone, Copy)]
pub struct Gradient {
    pub dw: *mut f32,
    pub c_in: usize,
    pub c_out: usize,
    /// Distance of two input channels, and of two output channels.
    pub stride: (usize, usize),
    /// Mirrors the taps.
    pub flip: bool,
}

impl Gradient {
    #[inline(always)]
    fn at(&self, c: usize, first: usize) -> *mut f32 {
        self.dw.wrapping_add(c * self.stride.0 + first * self.stride.1)
    }
}

/// A panel of output channels of a gradient, of whom each input channel's row is written past the caches, which it would only
/// pass through, where the taps of output channels lie side by side.
pub struct Past {
    to: Gradient,
    first: usize,
    pub columns: usize,
    row: Option<[f32; PANEL * TAPS]>,
}

impl Past {
    pub fn new(to: Gradient, panel: usize) -> Past {
        let (first, columns) = (panel * PANEL, PANEL.min(to.c_out - panel * PANEL));
        let whole = to.stride.1 == TAPS && columns.is_multiple_of(16);
        Past { to, first, columns, row: whole.then_some([0.0; PANEL * TAPS]) }
    }
    pub fn inputs(&self) -> usize {
        self.to.c_in
    }
    /// Writes the taps of input channel `c` and a vector of the panel's output channels from `j` on; `end` of the row follows.
    #[inline(always)]
    pub unsafe fn put<V: Vector>(&mut self, mut g: [V; TAPS], c: usize, j: usize) {
        if self.to.flip {
            g.reverse();
        }
        unsafe {
            match &mut self.row {
                Some(row) => store(&g, row.as_mut_ptr().add(j * TAPS), TAPS, self.columns - j),
                None => store(&g, self.to.at(c, self.first + j), self.to.stride.1, self.columns - j),
            }
        }
    }
    /// The row of input channel `c` is whole. `rows::settle` follows when all are.
    #[inline(always)]
    pub unsafe fn end(&self, c: usize) {
        let Some(row) = &self.row else { return };
        let to = unsafe { std::slice::from_raw_parts_mut(self.to.at(c, self.first), self.columns * TAPS) };
        for (from, to) in row.as_chunks::<16>().0.iter().zip(to.chunks_exact_mut(16)) {
            rows::put(*from, to, true);
        }
    }
}

/// The taps of the first `n` of `LANES` channels, which lie `stride` values apart; the other lanes are zero.
#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, stride: usize, n: usize) -> [V; TAPS] {
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
unsafe fn store<V: Vector>(values: &[V; TAPS], to: *mut f32, stride: usize, n: usize) {
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
