//! The CPU path: which way each member of the convolution family is computed. Directly, bf16 tensors are multiplied as
//! bf16 pairs where the processor can, else converted to f32 while they are gathered.

use super::kernels::by_operand;
use super::winograd::{self, Direction};
use super::{Shape, Up, direct, few, up, weight};
use crate::element::Element;
use crate::grid::Grid;

/// y = conv(x) + bias.
pub fn forward<E: Element>(s: &Shape, grid: &Grid, x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    if winograd::free() && few::wins(s, grid) {
        return few::forward(s, grid, x, w, bias, y);
    }
    if let Some(path) = winograd::choose::<E>(s, grid, Direction::Forward) {
        return winograd::forward(path, s, grid, x, w, bias, y);
    }
    by_operand!(E, O => direct::forward::<E, O>(s, grid, x, w, bias, y))
}

/// dx from dy.
pub fn grad_input<E: Element>(s: &Shape, grid: &Grid, dy: &[E], w: &[f32], dx: &mut [E]) {
    if winograd::free() && few::wins(s, grid) {
        return few::grad_input(s, grid, dy, w, dx);
    }
    if let Some(path) = winograd::choose::<E>(s, grid, Direction::GradInput) {
        return winograd::grad_input(path, s, grid, dy, w, dx);
    }
    by_operand!(E, O => direct::grad_input::<E, O>(s, grid, dy, w, dx))
}

/// dw, in f32, from x and dy.
pub fn grad_weight<E: Element>(s: &Shape, grid: &Grid, x: &[E], dy: &[E], dw: &mut [f32]) {
    if winograd::free() && few::wins(s, grid) {
        return few::grad_weight(s, grid, x, dy, dw);
    }
    if let Some(path) = winograd::choose::<E>(s, grid, Direction::GradWeight) {
        return winograd::grad_weight(path, s, grid, x, dy, dw);
    }
    by_operand!(E, O => weight::grad_weight::<E, O>(s, grid, x, dy, dw))
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
