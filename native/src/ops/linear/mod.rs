//! The linear layer on rows.
//!
//! Contract. x `[rows][c_in]`, y `[rows][c_out]`, weight `[c_out][c_in]`, bias `[c_out]`. y = x weight^T + bias;
//! dx = dy weight; dweight = dy^T x. x, y and their gradients are f32 or bf16, parameters and their gradients f32. bf16
//! rows are multiplied as bf16 where the processor can (the weight is rounded then), and sums are f32.

pub mod amx;
pub mod factors;
pub mod kernel;
pub mod launch;
pub mod pack;
pub mod product;
#[cfg(test)]
mod tests;
pub mod turn;

use crate::element::Element;
use crate::{gpu, queue, tensor};
use factors::Factors;
use pack::Factor;
use product::{With, product};

/// Multiplies in what the processor multiplies for stored values of type `E`.
macro_rules! by_group {
    ($E:ty, $G:ident => $body:expr) => {
        if $crate::ops::conv3d::kernels::in_pairs::<$E>() {
            const $G: usize = 2;
            $body
        } else {
            const $G: usize = 1;
            $body
        }
    };
}

pub(crate) use by_group;

/// As `by_group!`, with the tile that multiplies and its rows.
macro_rules! by_tile {
    ($E:ty, $G:ident, $R:ident, $tile:ident => $body:expr) => {
        match $crate::ops::conv3d::isa::tiles() {
            Some(amx) if $crate::ops::conv3d::kernels::in_pairs::<$E>() => {
                const $G: usize = 2;
                const $R: usize = $crate::ops::linear::amx::M;
                let $tile = $crate::ops::linear::amx::tile(amx);
                $body
            }
            _ => by_group!($E, $G => {
                const $R: usize = $crate::ops::linear::kernel::M;
                let $tile = $crate::ops::linear::kernel::tile($G);
                $body
            }),
        }
    };
}

pub(crate) use by_tile;

/// y = x w^T + bias.
pub fn forward<E: Element>(c: [usize; 2], x: &[E], w: &[f32], bias: Option<&[f32]>, y: &mut [E]) {
    added(c, x, w, With { bias, onto: None, upper: false }, y)
}

/// y = x w^T + what `with` says.
fn added<E: Element>(c: [usize; 2], x: &[E], w: &[f32], with: With<E>, y: &mut [E]) {
    let [c_in, c_out] = c;
    let (a, b) = (Factor::rows(x, c_in), Factor::rows(w, c_in));
    by_tile!(E, G, R, tile => product::<G, R, E, f32, E>([x.len() / c_in, c_out, c_in], a, b, with, y, tile))
}

/// Rows of a dense batch of `side`, and of each the row of its 2x2x2 cell in the batch of half that side.
fn cells(samples: usize, [sz, sy, sx]: [usize; 3]) -> Vec<u32> {
    let half = |n: usize, z: usize, y: usize, x: usize| (((n * sz + z) / 2 * sy + y) / 2 * sx + x) / 2;
    let mut index = Vec::with_capacity(samples * sz * sy * sx);
    for (n, z, y) in (0..samples).flat_map(|n| (0..sz).flat_map(move |z| (0..sy).map(move |y| (n, z, y)))) {
        index.extend((0..sx).map(|x| half(n, z, y, x) as u32));
    }
    index
}

/// dx = dy w.
pub fn grad_input<E: Element>(c: [usize; 2], dy: &[E], w: &[f32], dx: &mut [E]) {
    let [c_in, c_out] = c;
    let (a, b) = (Factor::rows(dy, c_out), Factor::columns(w, c_in));
    by_tile!(E, G, R, tile => product::<G, R, E, f32, E>([dy.len() / c_out, c_in, c_out], a, b, With::NONE, dx, tile))
}

/// dw = dy^T x, in f32.
pub fn grad_weight<E: Element>(c: [usize; 2], x: &[E], dy: &[E], dw: &mut [f32]) {
    let [c_in, c_out] = c;
    let (a, b) = (Factor::columns(dy, c_out), Factor::columns(x, c_in));
    by_tile!(E, G, R, tile => product::<G, R, E, E, f32>([c_out, c_in, x.len() / c_in], a, b, With::NONE, dw, tile))
}

fn sizes(rows: u32, c_in: u32, c_out: u32) -> crate::abi::Result<(usize, [usize; 2])> {
    if c_in == 0 || c_out == 0 {
        return Err("linear: a width is 0".into());
    }
    Ok((rows as usize, [c_in as usize, c_out as usize]))
}

exports! {
    /// y = x weight^T + bias; bias 0 means none.
    fn vx_linear(x: u32, weight: u32, bias: u32, rows: u32, c_in: u32, c_out: u32) {
        let (rows, c) = sizes(rows, c_in, c_out)?;
        let x = tensor::either(x, rows * c[0], "linear input")?;
        let weight = tensor::get(weight, c[0] * c[1], "linear weight")?;
        let bias = if bias == 0 { None } else { Some(tensor::get(bias, c[1], "linear bias")?) };
        let (y, handle) = tensor::make_as(rows * c[1], x.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::forward(c, &x, &weight, bias.as_deref(), &y);
            }
            let bias = bias.as_ref().map(|b| b.values());
            by_dtype!(x.dtype, E => forward(c, x.of::<E>(), weight.values(), bias, y.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// y = x weight^T + bias on a dense batch of side z, y, x, plus `coarse` of half that side, each row to its 2x2x2 voxels.
    fn vx_linear_onto(x: u32, weight: u32, bias: u32, coarse: u32, samples: u32, z: u32, y: u32, w: u32, c_in: u32, c_out: u32) {
        let side = [z, y, w].map(|s| s as usize);
        if side.iter().any(|s| s % 2 == 1) {
            return Err(format!("linear: the side {side:?} has no half"));
        }
        let (rows, c) = sizes(samples * z * y * w, c_in, c_out)?;
        let x = tensor::either(x, rows * c[0], "linear input")?;
        let weight = tensor::get(weight, c[0] * c[1], "linear weight")?;
        let bias = if bias == 0 { None } else { Some(tensor::get(bias, c[1], "linear bias")?) };
        let coarse = tensor::get_as(coarse, rows / 8 * c[1], "linear coarse rows", x.dtype)?;
        let (y, handle) = tensor::make_as(rows * c[1], x.dtype);
        queue::enqueue(move || {
            let (bias, index) = (bias.as_ref().map(|b| b.values()), cells(samples as usize, side));
            by_dtype!(x.dtype, E => {
                let with = With { bias, onto: Some((coarse.of::<E>(), &index)), upper: false };
                added(c, x.of::<E>(), weight.values(), with, y.of_mut())
            });
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the input from that of the output.
    fn vx_linear_grad_input(dy: u32, weight: u32, rows: u32, c_in: u32, c_out: u32) {
        let (rows, c) = sizes(rows, c_in, c_out)?;
        let dy = tensor::either(dy, rows * c[1], "linear output gradient")?;
        let weight = tensor::get(weight, c[0] * c[1], "linear weight")?;
        let (dx, handle) = tensor::make_as(rows * c[0], dy.dtype);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_input(c, &dy, &weight, &dx);
            }
            by_dtype!(dy.dtype, E => grad_input(c, dy.of::<E>(), weight.values(), dx.of_mut()));
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the weight, f32. Where x and dy are smaller it waits as these (`factors`).
    fn vx_linear_grad_weight(x: u32, dy: u32, rows: u32, c_in: u32, c_out: u32) {
        let (rows, c) = sizes(rows, c_in, c_out)?;
        let x = tensor::either(x, rows * c[0], "linear input")?;
        let dy = tensor::get_as(dy, rows * c[1], "linear output gradient", x.dtype)?;
        if let (false, Some(factors)) = (gpu::active(), Factors::new(c, &x, &dy)) {
            return Ok(tensor::make_later(c[0] * c[1], factors));
        }
        let (dw, handle) = tensor::make(c[0] * c[1]);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::grad_weight(c, &x, &dy, &dw);
            }
            by_dtype!(x.dtype, E => grad_weight(c, x.of::<E>(), dy.of(), dw.values_mut()));
            Ok(())
        });
        Ok(handle)
    }
}
