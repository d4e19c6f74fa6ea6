//! Small matrix products in registers: what the attention in windows and convolutions of few voxels are made of.

use std::sync::OnceLock;

/// Rows of c in registers.
pub const ROWS: usize = 8;

/// Whether the processor has AVX-512 as compilers know it.
pub fn avx512() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        return is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        #[cfg(not(target_arch = "x86_64"))]
        false
    })
}

/// Where value (i, k) of the left factor lies: `i * row + k * column`.
#[derive(Clone, Copy)]
pub struct Strides {
    pub row: usize,
    pub column: usize,
}

/// c[i][j] = sum over k of a(i, k) * b[k][j], added to c where `add`. m a multiple of 8, n of 16; b and c have rows of
/// `b_row` and `c_row` values.
#[allow(clippy::too_many_arguments)]
pub fn product(
    [m, n, depth]: [usize; 3],
    a: &[f32],
    at: Strides,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
    add: bool,
) {
    if m == 0 || n == 0 || depth == 0 {
        return;
    }
    assert!(m.is_multiple_of(ROWS) && n.is_multiple_of(16));
    assert!((m - 1) * at.row + (depth - 1) * at.column < a.len(), "a product reads outside its left factor");
    assert!((depth - 1) * b_row + n <= b.len(), "a product reads outside its right factor");
    assert!((m - 1) * c_row + n <= c.len(), "a product writes outside its result");
    for j in (0..n).step_by(32) {
        for i in (0..m).step_by(ROWS) {
            let (a, b, c) = (&a[i * at.row..], &b[j..], &mut c[i * c_row + j..]);
            #[cfg(target_arch = "x86_64")]
            if avx512() {
                unsafe {
                    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                    match n - j {
                        16 => tile_avx512::<1>(depth, a, at, b, b_row, c, c_row, add),
                        _ => tile_avx512::<2>(depth, a, at, b, b_row, c, c_row, add),
                    }
                }
                continue;
            }
            for half in (j..n.min(j + 32)).step_by(16) {
                rows_portable(depth, a, at, &b[half - j..], b_row, &mut c[half - j..], c_row, add);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(clippy::too_many_arguments)]
unsafe fn tile_avx512<const V: usize>(
    depth: usize,
    a: *const f32,
    at: Strides,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    use std::arch::x86_64::*;
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
        if add {
            for (i, row) in sums.iter_mut().enumerate() {
                for (j, sum) in row.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(c.add(i * c_row + 16 * j));
                }
            }
        }
        for k in 0..depth {
            let columns: [__m512; V] = std::array::from_fn(|j| _mm512_loadu_ps(b.add(k * b_row + 16 * j)));
            for (i, row) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*a.add(i * at.row + k * at.column));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(value, column, *sum);
                }
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, sum) in row.iter().enumerate() {
                _mm512_storeu_ps(c.add(i * c_row + 16 * j), *sum);
            }
        }
    }
}

/// 8 rows of 16 columns.
#[allow(clippy::too_many_arguments)]
fn rows_portable(
    depth: usize,
    a: &[f32],
    at: Strides,
    b: &[f32],
    b_row: usize,
    c: &mut [f32],
    c_row: usize,
    add: bool,
) {
    super::rows::vectorised(|| {
        for i in 0..ROWS {
            let out = &mut c[i * c_row..][..16];
            let mut sums = [0f32; 16];
            if add {
                sums.copy_from_slice(out);
            }
            for k in 0..depth {
                let value = a[i * at.row + k * at.column];
                sums.iter_mut().zip(&b[k * b_row..][..16]).for_each(|(s, b)| *s += value * b);
            }
            out.copy_from_slice(&sums);
        }
    });
}
