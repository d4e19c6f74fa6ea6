//! 3x3x3 convolution with stride 1 over two tensors that lie joined on channels, as a level of a U-Net's decoder reads what
//! comes from below and the skip: the result of `conv3d` on `concat`, to the bit, and gradients of each of the two.
//!
//! By Winograd nothing is joined: a vector of channels is transformed from, and written to, the tensor that has it, if the
//! first has a multiple of 16 channels; nor by the kernels of `kernel.cu`, from 8 on. Every other way joins and splits in scratch
//! for the time of the op.

use super::choice::{Direction, Way, way};
use super::winograd::{self, Parts};
use super::{Shape, cpu, launch, parse};
use crate::abi::Result;
use crate::element::Element;
use crate::grid::Grid;
use crate::memory::Scratch;
use crate::ops::concat;
use crate::tensor::{self, Buffer, Tensor};
use crate::{gpu, queue};
use std::sync::Arc;

/// Vectors of channels may come from either part.
fn aligned([ca, _]: [usize; 2]) -> bool {
    ca.is_multiple_of(16)
}

/// Both parts in scratch.
fn whole<E: Element>(x: &Parts<&[E]>) -> Scratch<E> {
    let mut out = Scratch::<E>::new(x.of[0].len() + x.of[1].len());
    concat::join(x.of[0], x.of[1], x.c, &mut out);
    out
}

/// As `cpu::forward`.
fn forward<E: Element>(
    s: &Shape,
    grid: &Grid,
    x: Parts<&[E]>,
    w: &[f32],
    (bias, normed): (Option<&[f32]>, bool),
    y: &mut [E],
) -> Option<Vec<f64>> {
    match way::<E>(s, grid, Direction::Forward) {
        Way::Winograd(path) if aligned(x.c) => winograd::forward(path, s, grid, x, w, (bias, normed), y),
        _ => cpu::forward(s, grid, &whole(&x), w, (bias, normed), y),
    }
}

/// dx from dy.
fn grad_input<E: Element>(s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: Parts<&mut [E]>) {
    match way::<E>(s, grid, Direction::GradInput) {
        Way::Winograd(path) if aligned(dx.c) => winograd::grad_input(path, s, grid, false, dy, w, dx),
        _ => {
            let mut all = Scratch::<E>::new(dx.of[0].len() + dx.of[1].len());
            cpu::grad_input(s, grid, dy, w, &mut all);
            let [a, b] = dx.of;
            concat::take_columns(&all, s.c_in, 0, dx.c[0], a);
            concat::take_columns(&all, s.c_in, dx.c[0], dx.c[1], b);
        }
    }
}

/// dw, in f32, from x and dy.
fn grad_weight<E: Element>(s: &Shape, grid: &Grid, x: Parts<&[E]>, dy: &[E], dw: &mut [f32]) {
    match way::<E>(s, grid, Direction::GradWeight) {
        Way::Winograd(path) if aligned(x.c) => winograd::grad_weight(path, s, grid, x, dy, dw),
        _ => cpu::grad_weight(s, grid, &whole(&x), dy, dw),
    }
}

/// Two tensors and their channels.
struct Pair {
    of: [Tensor; 2],
    c: [usize; 2],
}

impl Pair {
    fn get(handles: [u32; 2], s: &Shape, grid: &Grid, c: [usize; 2]) -> Result<Pair> {
        let rows = grid.blocks.len() * s.in_voxels();
        let a = tensor::either(handles[0], rows * c[0], "joined conv3d first input")?;
        let b = tensor::get_as(handles[1], rows * c[1], "joined conv3d second input", a.dtype)?;
        Ok(Pair { of: [a, b], c })
    }
    fn parts<E: Element>(&self) -> Parts<&[E]> {
        Parts { of: [self.of[0].of(), self.of[1].of()], c: self.c }
    }
    /// Where they lie on a card in use.
    fn on_card(self, s: &Shape, grid: &Grid, direction: Direction) -> OnCard {
        let [a, b] = &self.of;
        let apart = launch::takes_two(s, grid, self.c, a.dtype, direction);
        let whole = (!apart).then(|| Buffer::with_len(a.len + b.len, a.dtype));
        OnCard { pair: self, whole }
    }
}

/// Two tensors on the card, and what holds both where kernels need it, until the op is done; the plan of a step counts it.
struct OnCard {
    pair: Pair,
    whole: Option<Tensor>,
}

impl OnCard {
    fn joined(&self) -> launch::Joined<'_> {
        let ([a, b], [ca, _]) = (&self.pair.of, self.pair.c);
        self.whole.as_ref().map_or(launch::Joined { x: a, other: Some((b, ca)) }, |whole| launch::Joined::of(whole))
    }
    fn join(&self) -> Result<()> {
        let (Pair { of: [a, b], c }, Some(whole)) = (&self.pair, &self.whole) else { return Ok(()) };
        concat::launch::concat(a, b, a.len / c[0], *c, whole)
    }
    fn split(&self) -> Result<()> {
        let (Pair { of: [a, b], c: [ca, cb] }, Some(whole)) = (&self.pair, &self.whole) else { return Ok(()) };
        let rows = a.len / ca;
        concat::launch::take_columns(whole, rows, ca + cb, 0, *ca, a)?;
        concat::launch::take_columns(whole, rows, ca + cb, *ca, *cb, b)
    }
}

fn shape(grid: u32, side: [u32; 3], [ca, cb]: [u32; 2], c_out: u32) -> Result<(Arc<Grid>, Shape, [usize; 2])> {
    if ca == 0 || cb == 0 {
        return Err("joined conv3d: an input has no channels".into());
    }
    let (grid, s) = parse(grid, side, ca + cb, c_out, 3, 1)?;
    Ok((grid, s, [ca as usize, cb as usize]))
}

exports! {
    /// y = conv([a | b], weight) + bias; bias 0 means none. bz, by, bx: block side. normed: a norm follows.
    fn vx_conv3d_joined(a: u32, b: u32, weight: u32, bias: u32, grid: u32, bz: u32, by: u32, bx: u32, ca: u32, cb: u32, c_out: u32, normed: bool) {
        let (grid, s, c) = shape(grid, [bz, by, bx], [ca, cb], c_out)?;
        let x = Pair::get([a, b], &s, &grid, c)?;
        let weight = tensor::get(weight, s.weight_len(), "joined conv3d weight")?;
        let bias = if bias == 0 { None } else { Some(tensor::get(bias, s.c_out, "joined conv3d bias")?) };
        let (y, handle) = tensor::make_as(s.output_len(&grid), x.of[0].dtype);
        if gpu::active() {
            let x = x.on_card(&s, &grid, Direction::Forward);
            queue::enqueue(move || {
                x.join()?;
                launch::forward(&s, &grid, x.joined(), &weight, bias.as_deref(), &y)
            });
            return Ok(handle);
        }
        queue::enqueue(move || {
            let bias = bias.as_ref().map(|b| b.values());
            let sums = by_dtype!(y.dtype, E => {
                forward(&s, &grid, x.parts::<E>(), weight.values(), (bias, normed), y.of_mut())
            });
            s.leave(&grid, sums, &y);
            Ok(())
        });
        Ok(handle)
    }
    /// Gradients of both inputs from that of the output; their handles go to `inputs`.
    fn vx_conv3d_joined_grad_input(dy: u32, weight: u32, grid: u32, bz: u32, by: u32, bx: u32, ca: u32, cb: u32, c_out: u32, inputs: slice_mut[u32]) {
        let (grid, s, c) = shape(grid, [bz, by, bx], [ca, cb], c_out)?;
        let dy = tensor::either(dy, s.output_len(&grid), "joined conv3d output gradient")?;
        let weight = tensor::get(weight, s.weight_len(), "joined conv3d weight")?;
        let [first, second] = inputs else { return Err("joined conv3d: room for two handles is needed".into()) };
        let rows = grid.blocks.len() * s.in_voxels();
        let [(da, a), (db, b)] = c.map(|c| tensor::make_as(rows * c, dy.dtype));
        (*first, *second) = (a as u32, b as u32);
        let dx = Pair { of: [da, db], c };
        if gpu::active() {
            let dx = dx.on_card(&s, &grid, Direction::GradInput);
            queue::enqueue(move || {
                launch::grad_input(&s, &grid, &dy, &weight, dx.joined())?;
                dx.split()
            });
            return Ok(0.0);
        }
        queue::enqueue(move || {
            by_dtype!(dy.dtype, E => {
                let dx = Parts { of: [dx.of[0].of_mut(), dx.of[1].of_mut()], c };
                grad_input(&s, &grid, dy.of::<E>(), weight.values(), dx)
            });
            Ok(())
        });
        Ok(0.0)
    }
    /// Gradient of the weight.
    fn vx_conv3d_joined_grad_weight(a: u32, b: u32, dy: u32, grid: u32, bz: u32, by: u32, bx: u32, ca: u32, cb: u32, c_out: u32) {
        let (grid, s, c) = shape(grid, [bz, by, bx], [ca, cb], c_out)?;
        let x = Pair::get([a, b], &s, &grid, c)?;
        let dy = tensor::get_as(dy, s.output_len(&grid), "joined conv3d output gradient", x.of[0].dtype)?;
        let (dw, handle) = tensor::make(s.weight_len());
        if gpu::active() {
            let x = x.on_card(&s, &grid, Direction::GradWeight);
            queue::enqueue(move || {
                x.join()?;
                launch::grad_weight(&s, &grid, x.joined(), &dy, &dw)
            });
            return Ok(handle);
        }
        queue::enqueue(move || {
            by_dtype!(dy.dtype, E => grad_weight(&s, &grid, x.parts::<E>(), dy.of(), dw.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa;
    use super::super::vector::{Operands, Path};
    use super::*;

    /// All three directions by Winograd, to the bit those of one tensor.
    fn judge<E: Element>(path: Path, side: [usize; 3], c: [usize; 2], c_out: usize, grid: &Grid) {
        let s = Shape { side, c_in: c[0] + c[1], c_out, kernel: 3, stride: 1 };
        let path = Path { wide: path.operands == Operands::F32 && winograd::widens(&s), ..path };
        let rows = grid.blocks.len() * s.out_voxels();
        let wave = |n: usize, a: f32| (0..n).map(move |i| (a * (i * i % 1009) as f32).sin());
        let stored = |n: usize, a: f32| wave(n, a).map(E::from_f32).collect::<Vec<E>>();
        let (a, b, dy) = (stored(rows * c[0], 0.7), stored(rows * c[1], 0.4), stored(rows * c_out, 0.3));
        let (w, bias): (Vec<f32>, Vec<f32>) = (wave(s.weight_len(), 0.9).collect(), wave(c_out, 1.1).collect());
        let x = Parts { of: [&a[..], &b[..]], c };
        let one = whole(&x);
        let (mut y, mut want) = (stored(dy.len(), 9.0), stored(dy.len(), 8.0));
        winograd::forward(path, &s, grid, x, &w, (Some(&bias), false), &mut y);
        winograd::forward(path, &s, grid, Parts::one(&one, s.c_in), &w, (Some(&bias), false), &mut want);
        assert!(y == want, "forward {s:?} {c:?} {path:?}");
        let (mut da, mut db, mut want) = (stored(a.len(), 9.0), stored(b.len(), 9.0), stored(one.len(), 8.0));
        winograd::grad_input(path, &s, grid, false, &dy, &w, Parts { of: [&mut da, &mut db], c });
        winograd::grad_input(path, &s, grid, false, &dy, &w, Parts::one_mut(&mut want, s.c_in));
        assert!(*whole(&Parts { of: [&da[..], &db[..]], c }) == want[..], "data gradient {s:?} {c:?} {path:?}");
        let (mut dw, mut want) = (vec![9.0; w.len()], vec![8.0; w.len()]);
        winograd::grad_weight(path, &s, grid, x, &dy, &mut dw);
        winograd::grad_weight(path, &s, grid, Parts::one(&one, s.c_in), &dy, &mut want);
        assert!(dw == want, "weight gradient {s:?} {c:?} {path:?}");
    }

    fn judge_all<E: Element>(path: Path) {
        let masked = Grid::new(2, [2, 2, 2], &[1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0]).unwrap();
        let dense = Grid::new(2, [1, 1, 1], &[1, 1]).unwrap();
        judge::<E>(path, [2, 4, 6], [16, 16], 16, &masked);
        judge::<E>(path, [4, 2, 6], [32, 32], 32, &masked);
        judge::<E>(path, [4, 4, 4], [16, 21], 40, &masked);
        judge::<E>(path, [2, 2, 6], [48, 37], 40, &masked); // few tiles
        judge::<E>(path, [2, 6, 2], [64, 9], 21, &dense);
        judge::<E>(path, [16, 12, 14], [48, 19], 35, &dense);
        judge::<E>(path, [8, 4, 12], [48, 19], 35, &dense);
    }

    #[test]
    fn joined_inputs_give_the_bits_of_one_on_every_instruction_set() {
        isa::available().for_each(|isa| {
            judge_all::<f32>(Path::new(isa, false, false));
            judge_all::<half::bf16>(Path::new(isa, false, false));
        });
        judge_all::<half::bf16>(Path::new(isa::isa(), true, false));
    }
}
