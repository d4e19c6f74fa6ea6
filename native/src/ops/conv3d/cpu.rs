//! The CPU path: which way each member of the convolution family is computed. Directly, bf16 tensors are multiplied as
//! bf16 pairs where the processor can, else converted to f32 while they are gathered.

use super::choice::{Direction, Way, way};
use super::kernels::by_operand;
use super::winograd::Parts;
use super::{Shape, Up, direct, few, rounded, up, weight, winograd};
use crate::element::Element;
use crate::grid::Grid;

/// y = conv(x) + bias. Where a norm follows (`normed`), the sums that it needs, from a way that has them.
pub fn forward<E: Element>(
    s: &Shape,
    grid: &Grid,
    x: &[E],
    w: &[f32],
    (bias, normed): (Option<&[f32]>, bool),
    y: &mut [E],
) -> Option<Vec<f64>> {
    match way::<E>(s, grid, Direction::Forward) {
        Way::Winograd(path) => return winograd::forward(path, s, grid, Parts::one(x, s.c_in), w, (bias, normed), y),
        Way::Few(path) => few::forward(path, s, grid, x, w, bias, y),
        Way::Rounded(path) => rounded::forward(path, s, grid, x, w, bias, y),
        Way::Direct => by_operand!(E, O => direct::forward::<E, O>(s, grid, x, w, bias, y)),
    }
    None
}

/// dx from dy.
pub fn grad_input<E: Element>(s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: &mut [E]) {
    match way::<E>(s, grid, Direction::GradInput) {
        Way::Few(path) => few::grad_input(path, s, grid, dy, w, dx),
        Way::Winograd(path) => winograd::grad_input(path, s, grid, false, dy, w, Parts::one_mut(dx, s.c_in)),
        Way::Rounded(path) => rounded::grad_input(path, s, grid, dy, w, dx),
        Way::Direct => by_operand!(E, O => direct::grad_input::<E, O>(s, grid, dy, w, dx)),
    }
}

/// dw, in f32, from x and dy.
pub fn grad_weight<E: Element>(s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    match way::<E>(s, grid, Direction::GradWeight) {
        Way::Few(path) => few::grad_weight(path, s, grid, x, dy, dw),
        Way::Winograd(path) => winograd::grad_weight(path, s, grid, Parts::one(x, s.c_in), dy, dw),
        Way::Rounded(path) => rounded::grad_weight(path, s, grid, x, dy, dw),
        Way::Direct => by_operand!(E, O => weight::grad_weight::<E, O>(s, grid, x, dy, dw)),
    }
}

/// y of the transposed convolution.
pub fn up_forward<E: Element>(s: &Up, x: &[E], w: &[f32], bias: &[f32], y: &mut [E]) {
    by_operand!(E, O => up::forward::<E, O>(s, x, w, bias, y))
}

/// dx of the transposed convolution.
pub fn up_grad_input<E: Element>(s: &Up, dy: &[E], w: &[f32], dx: &mut [E]) {
    by_operand!(E, O => up::grad_input::<E, O>(s, dy, w, dx))
}

/// dw of the transposed convolution, `[c_in, c_out, 2, 2, 2]`, in f32.
pub fn up_grad_weight<E: Element>(s: &Up, x: &[E], dy: &[E], dw: &mut [f32]) {
    by_operand!(E, O => up::grad_weight::<E, O>(s, x, dy, dw))
}
