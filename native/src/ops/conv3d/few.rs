//! 3x3x3 convolutions of few voxels and many channels (the deepest stages), where reading the weights is the work: no packed copy
//! of them, and no product with a voxel outside the blocks. Each tap has a list of the pairs of input and output rows that it
//! joins. Forward pass and data gradient (the same, with the ends of each pair exchanged): per 32 output channels, strips of the
//! weights are transposed into the cache, and rows of the input times these added to rows of sums. Weight gradient: per 32 x 32
//! channels the products of all taps, transposed as they leave.
//!
//! Two cores of a Zen 5, 2026-11-22, other programs reading files beside, best of each, weights from memory, milliseconds per call of bf16 (f32): forward, data
//! gradient, weight gradient this way; and as it was computed before: on rows of 27 taps (*), by Winograd (w), directly (d).
//!
//! | channels, blocks of | this way | before |
//! |---|---|---|
//! | 320 to 320, 1 of 3^3 | 0.56, 0.53, 0.61 (0.77, 0.71, 0.84) | 1.3, 1.1, 1.2 * (1.8, 3.0, 1.3 *) |
//! | 320 to 320, 54 of 1^3 | 0.60, 0.55, 0.54 (0.84, 0.72, 0.77) | 1.8, 1.4, 1.1 * (3.5, 4.1, 1.6 *) |
//! | 320 to 320, 4 of 2^3 | 0.54, 0.51, 0.56 | 1.3, 1.1, 0.8 * |
//! | 320 to 320, 1 of 5^3 | 1.1, 1.1, 1.2 (2.0, 1.9, 2.0) | 1.4, 1.2, 1.5 w (3.4, 3.2, 3.6 w) |
//! | 320 to 320, 1 of 6^3, not taken | 1.8, 1.7, 1.8 (3.1, 3.0, 6.2) | 1.3, 1.2, 1.6 w (3.5, 3.2, 3.7 w) |
//! | 256 to 320 with stride 2, 1 of 6^3 | 2.2, 1.7, 1.9 (4.1, 3.0, 3.9) | 5.9, 6.5, 7.0 d (8.7, 9.1, 9.8 d) |
//! | 256 to 320 with stride 2, 54 of 2^3 | 2.8, 2.6, 2.6 (6.9, 4.6, 5.4) | 8.0, 11, 12 d (11, 17, 14 d) |
//! | 128 to 256 with stride 2, 1 of 8^3 | 1.8, 1.7, 2.0 (4.2, 3.8, 5.4) | 4.5, 5.1, 3.6 d (7.3, 6.7, 4.5 d) |
//! | 128 to 256 with stride 2, 1 of 12^3, not taken | 7.3, 5.8, 7.9 (9.7, 9.5, 20) | 5.9, 9.7, 6.6 d (17, 17, 17 d) |
//!
//! With AVX2 320 to 320, 1 of 3^3: 1.6, 1.6, 1.4, before 9.5, 8.4, 2.0. Whole `s3d` steps of `resenc-l` at 96^3 in turn, other programs
//! running, medians of four: 1.46, 1.56, 1.40 s before, 1.34, 1.34, 1.56 s after.
//!
//! Since 2026-11-23 the weights of the next strip are asked for while one is multiplied, and gradients are written past the caches.
//! Two cores of a Zen 4, bf16, ten weights in turn, queued as in a step, best of three runs in turn, milliseconds of forward, data gradient, weight gradient before and after:
//!
//! | channels, blocks of | before | after |
//! |---|---|---|
//! | 320 to 320, 1 of 3^3 | 0.85, 0.89, 0.95 | 0.65, 0.67, 0.72 |
//! | 320 to 320, 1 of 5^3 | 1.72, 1.78, 1.91 | 1.42, 1.44, 1.69 |
//! | 256 to 320 with stride 2, 1 of 3^3 | 0.83, 0.83, 0.92 | 0.51, 0.57, 0.64 |
//! | 128 to 256 with stride 2, 1 of 8^3 | 2.80, 2.61, 2.75 | 2.46, 2.36, 2.79 |

use super::Shape;
use super::product::{PANEL, ROWS, add_rows, product};
use super::taps::{Given, Gradient, Past, TAPS};
use super::vector::{self, Kernel, Operand, Operands, Path, Vector, load, store};
use crate::element::Element;
use crate::grid::Grid;
use crate::memory::Scratch;
use crate::ops::rows::settle;
use rayon::prelude::*;

/// Words of input channels whose weights are transposed and multiplied together: more where their products take longer.
const fn strip(voxels: usize) -> usize {
    if voxels > 64 { 32 } else { 16 }
}

/// Most output voxels for which this way is taken.
const VOXELS: usize = 1024;

/// Whether this way is faster than multiplying directly.
pub fn beats_direct(s: &Shape, grid: &Grid) -> bool {
    let voxels = grid.blocks.len() * s.out_voxels();
    s.kernel == 3 && (1..=VOXELS).contains(&voxels) && s.c_in * s.c_out >= 1 << 14
}

/// Whether it is also faster than Winograd in `tiles` tiles: the products of one pair of rows against those of a tile, f32 counting
/// twice, and the weights, which Winograd enlarges.
pub fn beats_winograd(s: &Shape, grid: &Grid, tiles: usize, operands: Operands) -> bool {
    let within = |n: usize, side: usize| if n == 1 { 3 * side - 2 } else { 1 };
    let pairs = grid.neighbours.iter().flat_map(|neighbours| neighbours.iter().enumerate().filter(|(_, b)| **b >= 0));
    let pairs = pairs
        .map(|(n, _)| [n / 9, n / 3 % 3, n % 3].into_iter().zip(s.side).map(|(n, s)| within(n, s)).product::<usize>());
    pairs.sum::<usize>() * 2 / operands.per_word() <= 1400 + 46 * tiles
}

/// Input and output rows that a tap joins.
type Pair = [u32; 2];

/// The pairs of each tap.
fn pairs(s: &Shape, grid: &Grid) -> [Vec<Pair>; TAPS] {
    let side = s.side.map(|v| v * s.stride);
    // Position of input `p - 1` on an axis: (neighbour 0..3, voxel in its block).
    let locate = |p: usize, side: usize| match p {
        0 => (0, side - 1),
        p if p > side => (2, 0),
        p => (1, p - 1),
    };
    std::array::from_fn(|tap| {
        let mut list = Vec::new();
        for (block, neighbours) in grid.neighbours.iter().enumerate() {
            for voxel in 0..s.out_voxels() {
                let at = [voxel / (s.side[1] * s.side[2]), voxel / s.side[2] % s.side[1], voxel % s.side[2]];
                let [(nz, z), (ny, y), (nx, x)] =
                    std::array::from_fn(|a| locate(at[a] * s.stride + [tap / 9, tap / 3 % 3, tap % 3][a], side[a]));
                let from = neighbours[nz * 9 + ny * 3 + nx];
                if from >= 0 {
                    let row = ((from as usize * side[0] + z) * side[1] + y) * side[2] + x;
                    list.push([row as u32, (block * s.out_voxels() + voxel) as u32]);
                }
            }
        }
        list
    })
}

/// y = conv(x) + bias.
pub fn forward<E: Element>(path: Path, s: &Shape, grid: &Grid, x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    let given = Given { w, c_in: s.c_in, c_out: s.c_out, stride: (TAPS, s.c_in * TAPS), flip: false };
    sum(path, &pairs(s, grid), x, given, bias, y);
}

/// dx from dy.
pub fn grad_input<E: Element>(path: Path, s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: &mut [E]) {
    let given = Given { w, c_in: s.c_out, c_out: s.c_in, stride: (s.c_in * TAPS, TAPS), flip: false };
    let pairs = pairs(s, grid).map(|list| list.into_iter().map(|[from, to]| [to, from]).collect());
    sum(path, &pairs, dy, given, None, dx);
}

/// y[to] = bias + the sum over all pairs of x[from] times the weights of the tap.
fn sum<E: Element>(path: Path, pairs: &[Vec<Pair>; TAPS], x: &[E], given: Given, bias: Option<&[f32]>, y: &mut [E]) {
    let Given { c_in, c_out, .. } = given;
    let words = c_in.next_multiple_of(16) / path.operands.per_word();
    let (absent, spare) = (x.len() / c_in, y.len() / c_out);
    let mut memory = Scratch::<f32>::new((absent + 1) * words);
    memory[absent * words..].fill(0.0);
    let rows = Rows { x: x.as_ptr(), c: c_in, words, to: memory.as_mut_ptr() };
    (0..absent).into_par_iter().with_min_len(16).for_each(|index| vector::dispatch(&rows, path, index));
    // A tap's last group is filled up with rows of zeros, whose sums nobody reads.
    let group = |pairs: &[Pair]| {
        let place = |i: usize| pairs.get(i).map_or([absent, spare], |pair| pair.map(|row| row as usize));
        let end = |side: usize, row: usize| std::array::from_fn(|i| (place(i)[side] * row) as u32);
        [end(0, words), end(1, PANEL)]
    };
    let groups = pairs.each_ref().map(|list| list.chunks(ROWS).map(group).collect());
    let mut padded = vec![0f32; c_out.next_multiple_of(PANEL)];
    if let Some(bias) = bias {
        padded[..c_out].copy_from_slice(bias);
    }
    let lines = given.lines(strip(spare) * path.operands.per_word(), PANEL);
    let (x, y) = (memory.as_ptr(), y.as_mut_ptr());
    let work = Panel { groups: &groups, x, given, bias: &padded, voxels: spare, lines: &lines, y };
    let panels = c_out.div_ceil(PANEL);
    (0..panels).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&work, path, index));
}

/// Row `index` of x as operands, `[word]`.
struct Rows<E> {
    x: *const E,
    c: usize,
    words: usize,
    to: *mut f32,
}
unsafe impl<E> Sync for Rows<E> {}

impl<E: Element> Kernel for Rows<E> {
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        for c in (0..self.c).step_by(V::LANES) {
            unsafe { O::put(at::<V, E>(self.x, self.c, index, c), self.to.add(index * self.words + c / O::PER_WORD)) };
        }
    }
}

/// Channels of a row of `c`, from `first` on; zero behind the last.
#[inline(always)]
unsafe fn at<V: Vector, E: Element>(x: *const E, c: usize, row: usize, first: usize) -> V {
    unsafe {
        let from = x.add(row * c + first);
        match c - first {
            n if n >= V::LANES => load::<V, E, true>(from, n),
            n => load::<V, E, false>(from, n),
        }
    }
}

/// Where 8 rows of x begin, in words, and 8 rows of sums.
type Group = [[u32; ROWS]; 2];

/// y of one panel of output channels.
struct Panel<'a, E> {
    groups: &'a [Vec<Group>; TAPS],
    /// From `Rows`, and a row of zeros.
    x: *const f32,
    given: Given<'a>,
    /// One value per output channel, zero padded to whole panels.
    bias: &'a [f32],
    voxels: usize,
    /// Lines of the weights of a strip.
    lines: &'a [u32],
    y: *mut E,
}
unsafe impl<E> Sync for Panel<'_, E> {}

impl<E: Element> Kernel for Panel<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let Given { c_in, c_out, .. } = self.given;
        let (channel, words) = (index * PANEL, c_in.div_ceil(O::PER_WORD));
        let columns = PANEL.min(c_out - channel);
        let width = if columns > 16 { 32 } else { 16 };
        let most = strip(self.voxels);
        let mut memory = Scratch::<f32>::new(TAPS * most * PANEL + (self.voxels + 1) * PANEL);
        let weights = memory.as_mut_ptr();
        let sums = weights.wrapping_add(TAPS * most * PANEL);
        unsafe {
            for voxel in 0..=self.voxels {
                let bias = self.bias[channel..channel + PANEL].as_ptr();
                std::ptr::copy_nonoverlapping(bias, sums.add(voxel * PANEL), PANEL);
            }
            let per_group = self.lines.len().div_ceil(self.groups.iter().map(Vec::len).sum());
            for first in (0..words).step_by(most) {
                let strip = most.min(words - first);
                for word in 0..strip {
                    for j in (0..width).step_by(V::LANES) {
                        let c = (first + word) * O::PER_WORD;
                        let low = self.given.taps::<V>(c, channel + j, None);
                        let high = if O::PER_WORD == 2 { self.given.taps(c + 1, channel + j, None) } else { low };
                        for tap in 0..TAPS {
                            O::put_words([low[tap], high[tap]], weights.add((tap * most + word) * PANEL + j));
                        }
                    }
                }
                // The weights of the next strip come from memory while this one is multiplied.
                let mut next = self.given.soon((first + most) * O::PER_WORD, channel, self.lines, per_group);
                for (tap, groups) in self.groups.iter().enumerate() {
                    let right = weights.add(tap * most * PANEL);
                    for [from, to] in groups {
                        next.fetch();
                        add_rows::<V, O>((self.x.add(first), from), strip, right, (sums, to), width);
                    }
                }
            }
            for voxel in 0..self.voxels {
                for j in (0..columns).step_by(V::LANES) {
                    let to = self.y.add(voxel * c_out + channel + j);
                    store::<V, O, E>(V::load(sums.add(voxel * PANEL + j)), to, c_out - channel - j);
                }
            }
        }
    }
}

/// dw from x and dy.
pub fn grad_weight<E: Element>(path: Path, s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    let pairs = pairs(s, grid);
    let mut starts = [0; TAPS + 1];
    for tap in 0..TAPS {
        starts[tap + 1] = starts[tap] + pairs[tap].len().div_ceil(path.operands.per_word());
    }
    // The ends of all pairs, one under the other: words of neighbouring pairs, `[panel][word][32]`.
    let listed = |x: &[E], c: usize, end: usize| {
        let mut memory = Scratch::<f32>::new(c.div_ceil(PANEL) * starts[TAPS] * PANEL);
        let work = Listed { pairs: &pairs, end, x: x.as_ptr(), c, starts: &starts, to: memory.as_mut_ptr() };
        let panels = c.div_ceil(PANEL);
        (0..panels).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&work, path, index));
        memory
    };
    let (x, dy) = (listed(x, s.c_in, 0), listed(dy, s.c_out, 1));
    // Input channels in the lanes, since their taps lie side by side.
    let to = Gradient { dw: dw.as_mut_ptr(), c_in: s.c_out, c_out: s.c_in, stride: (s.c_in * TAPS, TAPS), flip: false };
    let work = Products { left: dy.as_ptr(), right: x.as_ptr(), starts: &starts, to };
    let panels = s.c_out.div_ceil(PANEL);
    (0..panels).into_par_iter().with_max_len(1).for_each(|index| vector::dispatch(&work, path, index));
}

/// One end of all pairs, in panel `index` of its channels.
struct Listed<'a, E> {
    pairs: &'a [Vec<Pair>; TAPS],
    end: usize,
    x: *const E,
    c: usize,
    /// First word of each tap.
    starts: &'a [usize; TAPS + 1],
    to: *mut f32,
}
unsafe impl<E> Sync for Listed<'_, E> {}

impl<E: Element> Kernel for Listed<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        for (list, start) in self.pairs.iter().zip(self.starts) {
            for (word, pairs) in list.chunks(O::PER_WORD).enumerate() {
                let to = self.to.wrapping_add((index * self.starts[TAPS] + start + word) * PANEL);
                for j in (0..PANEL).step_by(V::LANES) {
                    let row = |half: usize| match pairs.get(half) {
                        Some(pair) if index * PANEL + j < self.c => unsafe {
                            at::<V, E>(self.x, self.c, pair[self.end] as usize, index * PANEL + j)
                        },
                        _ => unsafe { V::splat(0.0) },
                    };
                    unsafe { O::put_words([row(0), row(1)], to.add(j)) };
                }
            }
        }
    }
}

/// dw of 32 output channels of the convolution, panel `index`, by 32 input channels in turn.
struct Products<'a> {
    /// dy and x, from `Listed`.
    left: *const f32,
    right: *const f32,
    starts: &'a [usize; TAPS + 1],
    to: Gradient,
}
unsafe impl Sync for Products<'_> {}

impl Kernel for Products<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector, O: Operand<V>>(&self, index: usize) {
        let Gradient { c_in, c_out, .. } = self.to;
        let words = self.starts[TAPS];
        let (first, rows) = (index * PANEL, PANEL.min(c_in - index * PANEL));
        let mut memory = Scratch::<f32>::new(TAPS * ROWS * PANEL);
        let sums = memory.as_mut_ptr();
        for panel in 0..c_out.div_ceil(PANEL) {
            let columns = PANEL.min(c_out - panel * PANEL);
            let width = if columns > 16 { 32 } else { 16 };
            let mut to = Past::new(self.to, panel);
            for block in (0..rows).step_by(ROWS) {
                unsafe {
                    for tap in 0..TAPS {
                        let left = self.left.add((index * words + self.starts[tap]) * PANEL + block);
                        let right = self.right.add((panel * words + self.starts[tap]) * PANEL);
                        let steps = self.starts[tap + 1] - self.starts[tap];
                        product::<V, O, false>(left, (1, PANEL), steps, right, sums.add(tap * ROWS * PANEL), width);
                    }
                    for r in 0..ROWS.min(rows - block) {
                        for j in (0..columns).step_by(V::LANES) {
                            let g = std::array::from_fn(|tap| V::load(sums.add((tap * ROWS + r) * PANEL + j)));
                            to.put::<V>(g, first + block + r, j);
                        }
                        to.end(first + block + r);
                    }
                }
            }
        }
        settle();
    }
}
