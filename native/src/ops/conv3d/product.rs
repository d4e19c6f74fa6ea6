//! The one inner loop of both directions: a register tile of 8 rows by 32 columns, as many steps as there are
//! channels (forward) or tiles (weight gradient).

// Small matrices read best by index.
#![allow(clippy::needless_range_loop)]

use super::vector::{Operand, Vector};

/// Columns of a panel of the right operand.
pub const PANEL: usize = 32;
/// Rows of a tile of products.
pub const ROWS: usize = 8;

/// m[r][j] = (ADD: m[r][j] +, last of all, so that many calls round like few steps) sum over k < steps of a[r * row + k * step] * w[k][j], for 8 rows and `width` columns (16 or 32).
/// a and w hold words of operands, all of which a step multiplies; w and m have rows of 32 words and values.
#[inline(always)]
pub unsafe fn product<V: Vector, O: Operand<V>, const ADD: bool>(
    a: *const f32,
    (row, step): (usize, usize),
    steps: usize,
    w: *const f32,
    m: *mut f32,
    width: usize,
) {
    let (from, to) = (rows(|r| a.wrapping_add(r * row)), rows(|r| m.wrapping_add(r * PANEL)));
    unsafe { blocks::<V, O, ADD>(&from, step, steps, w, &to, width) }
}

#[inline(always)]
fn rows<T>(at: impl FnMut(usize) -> T) -> [T; ROWS] {
    std::array::from_fn(at)
}

/// m[to[r] + j] += sum over k < steps of a[from[r] + k] * w[k][j] for 8 rows that lie anywhere, as `product` otherwise.
#[inline(always)]
pub unsafe fn add_rows<V: Vector, O: Operand<V>>(
    (a, from): (*const f32, &[u32; ROWS]),
    steps: usize,
    w: *const f32,
    (m, to): (*mut f32, &[u32; ROWS]),
    width: usize,
) {
    let (from, to) = (rows(|r| a.wrapping_add(from[r] as usize)), rows(|r| m.wrapping_add(to[r] as usize)));
    unsafe { blocks::<V, O, true>(&from, 1, steps, w, &to, width) }
}

/// As many register tiles as 8 rows of `width` columns take.
#[inline(always)]
unsafe fn blocks<V: Vector, O: Operand<V>, const ADD: bool>(
    from: &[*const f32; ROWS],
    step: usize,
    steps: usize,
    w: *const f32,
    to: &[*mut f32; ROWS],
    width: usize,
) {
    unsafe {
        match (V::LANES, V::ROWS, width) {
            (16, 8, 32) => block::<V, O, 8, 2, ADD>(from, step, steps, w, to),
            (16, 8, _) => block::<V, O, 8, 1, ADD>(from, step, steps, w, to),
            _ => {
                for r in (0..ROWS).step_by(4) {
                    for j in (0..width).step_by(2 * V::LANES) {
                        let from: [_; 4] = std::array::from_fn(|i| from[r + i]);
                        let to: [_; 4] = std::array::from_fn(|i| to[r + i].wrapping_add(j));
                        block::<V, O, 4, 2, ADD>(&from, step, steps, w.add(j), &to);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn block<V: Vector, O: Operand<V>, const R: usize, const Q: usize, const ADD: bool>(
    from: &[*const f32; R],
    step: usize,
    steps: usize,
    w: *const f32,
    to: &[*mut f32; R],
) {
    unsafe {
        let mut sums = [[V::splat(0.0); Q]; R];
        for k in 0..steps {
            let mut columns = [V::splat(0.0); Q];
            for j in 0..Q {
                columns[j] = V::load(w.add(k * PANEL + j * V::LANES));
            }
            for r in 0..R {
                let word = V::splat(*from[r].add(k * step));
                for j in 0..Q {
                    sums[r][j] = O::multiply(word, columns[j], sums[r][j]);
                }
            }
        }
        for r in 0..R {
            for j in 0..Q {
                let to = to[r].add(j * V::LANES);
                let sum = if ADD { V::load(to).add(sums[r][j]) } else { sums[r][j] };
                sum.store(to);
            }
        }
    }
}
