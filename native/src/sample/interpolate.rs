//! Interpolation of a view, row by row: sixteen voxels at a time get their places and weights as vectors, then each reads
//! its T^3 coefficients as T^2 short vectors along x.

use super::Affine;
use super::elastic::{self, Bend};
use super::spline::{self, fused};
use rayon::prelude::*;

/// Voxels of a row that are placed together.
const LANES: usize = 16;

/// What a view is interpolated from: coefficients that cover the voxels `low`..`low + size` of a volume of `shape`.
pub struct Field<'a> {
    pub coefficients: &'a [f32],
    pub size: [usize; 3],
    pub low: [usize; 3],
    pub shape: [usize; 3],
    /// Edge coordinates of the view -> those of the volume.
    pub affine: &'a Affine,
    /// Moves the points of the view first.
    pub bend: Option<&'a Bend>,
    /// What lies beyond the outermost voxel centres; none: the nearest face.
    pub fill: Option<f32>,
}

/// Interpolates `out` of shape `patch` with T = 2 linear taps or T = 4 cubic ones per axis.
pub fn taps<const T: usize>(of: &Field, patch: [usize; 3], out: &mut [f32]) {
    out.par_chunks_mut(patch[2]).enumerate().with_min_len(8).for_each(|(i, row)| {
        let (z, y) = (i / patch[1], i % patch[1]);
        match T {
            2 => linear_row(of, z, y, row),
            _ => cubic_row(of, z, y, row),
        }
    });
}

spline::for_best_vectors!(fn linear_row(of: &Field, z: usize, y: usize, row: &mut [f32]) = row_body[2]);
spline::for_best_vectors!(fn cubic_row(of: &Field, z: usize, y: usize, row: &mut [f32]) = row_body[4]);

/// Places of LANES voxels in the field, per axis.
struct Places<const T: usize> {
    /// Whether the point lies between the outermost centres on every axis.
    within: [bool; LANES],
    /// The first of the T voxels around the point, in the volume.
    first: [[i32; LANES]; 3],
    weights: [[[f32; LANES]; T]; 3],
}

#[inline(always)]
fn row_body<const T: usize, const LEVEL: u32>(of: &Field, z: usize, y: usize, row: &mut [f32]) {
    let bent = of.bend.map(|bend| bend.row(z, y));
    for (block, values) in row.chunks_mut(LANES).enumerate() {
        let places = place::<T>(of, bent.as_ref(), [z, y, block * LANES], values.len());
        let Places { within, first, weights } = &places;
        let mut at = [0u32; LANES];
        let mut inner = *within;
        for (d, first) in first.iter().enumerate() {
            let (low, last) = (of.low[d] as i32, of.size[d] as i32 - T as i32);
            for l in 0..LANES {
                let from = first[l] - low;
                inner[l] &= from >= 0 && from <= last;
                at[l] = at[l].wrapping_mul(of.size[d] as u32).wrapping_add(from as u32);
            }
        }
        let mut found = [0f32; LANES];
        if inner.contains(&true) {
            at.iter_mut().zip(inner).for_each(|(at, inner)| *at *= inner as u32); // the others read the first voxel
            unsafe { inside::<T, LEVEL>(of, &at, weights, &mut found) };
        }
        for (l, value) in values.iter_mut().enumerate() {
            *value = match of.fill {
                _ if inner[l] => found[l],
                Some(fill) if !within[l] => fill,
                _ => border(of, first.map(|f| f[l] as i64), &weights.map(|w| w.map(|w| w[l]))),
            }
        }
    }
}

/// Coordinates are whole numbers of 2^-32 voxels: a row is then a sum, and a place its upper half.
const ONE: f64 = 4_294_967_296.0;
/// Voxels that no volume reaches; points so far away may move as long as they stay there.
const FAR: f64 = (1u64 << 29) as f64;

#[inline(always)]
fn fixed(voxels: f64, most: f64) -> i64 {
    (voxels.clamp(-most, most) * ONE) as i64
}

/// Places of the `count` voxels from x on; lanes beyond them hold what no one reads.
#[inline(always)]
fn place<const T: usize>(of: &Field, bent: Option<&[Vec<f32>; 3]>, [z, y, x]: [usize; 3], count: usize) -> Places<T> {
    let mut out = Places { within: [true; LANES], first: [[0; LANES]; 3], weights: [[[0.0; LANES]; T]; 3] };
    let mut moved = [[0i64; LANES]; 3];
    if let Some(bent) = bent {
        for l in 0..count {
            let by = bent.each_ref().map(|nodes| elastic::between(nodes, x + l) as f64);
            for (a, moved) in of.affine.iter().zip(&mut moved) {
                moved[l] = fixed((0..3).map(|d| a[d] * by[d]).sum(), FAR);
            }
        }
    }
    for (d, moved) in moved.iter().enumerate() {
        let (a, last) = (&of.affine[d], (of.shape[d] as i64 - 1) << 32);
        let [z, y, x] = [z, y, x].map(|i| i as f64 + 0.5);
        let base = fixed(a[0] * z + a[1] * y + a[2] * x + a[3] - 0.5, FAR);
        let step = fixed(a[2], FAR / LANES as f64);
        for (l, moved) in moved.iter().enumerate() {
            let c = base + step * l as i64 + moved;
            out.within[l] &= c >= 0 && c <= last;
            let c = c.max(0).min(last);
            out.first[d][l] = (c >> 32) as i32 - (T as i32 / 2 - 1);
            let w = spline::weights::<T>(((c >> 8) as i32 & 0xff_ffff) as f32 * (1.0 / 16_777_216.0));
            (0..T).for_each(|k| out.weights[d][k][l] = w[k]);
        }
    }
    out
}

/// Voxels whose coefficients all lie in the field: the sum over T^3 from `at` on.
///
/// # Safety
/// They must lie there.
#[inline(always)]
unsafe fn inside<const T: usize, const LEVEL: u32>(
    of: &Field,
    at: &[u32; LANES],
    weights: &[[[f32; LANES]; T]; 3],
    values: &mut [f32; LANES],
) {
    let (plane, line) = (of.size[1] * of.size[2], of.size[2]);
    #[cfg(target_arch = "x86_64")]
    if LEVEL == 3 && T == 4 {
        return unsafe { wide(of.coefficients.as_ptr(), [plane, line], at, weights.as_ptr().cast(), values) };
    }
    let [wz, wy, wx] = weights;
    let mut totals = [[0f32; T]; LANES];
    for l in 0..LANES {
        let from = unsafe { of.coefficients.as_ptr().add(at[l] as usize) };
        let mut total = [0f32; T];
        for (z, wz) in wz.iter().enumerate() {
            let mut sums = [0f32; T];
            for (y, wy) in wy.iter().enumerate() {
                let taps = unsafe { &*(from.add(z * plane + y * line) as *const [f32; T]) };
                (0..T).for_each(|k| sums[k] = fused::<LEVEL>(wy[l], taps[k], sums[k]));
            }
            (0..T).for_each(|k| total[k] = fused::<LEVEL>(wz[l], sums[k], total[k]));
        }
        totals[l] = total;
    }
    for l in 0..LANES {
        values[l] = (0..T).map(|k| wx[k][l] * totals[l][k]).sum();
    }
}

/// `inside` for cubic taps: a vector holds the taps of voxels j, 4 + j, 8 + j and 12 + j.
///
/// # Safety
/// As for `inside`; `plane` and `line` are the strides of z and y.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq")]
#[inline]
unsafe fn wide(
    coefficients: *const f32,
    [plane, line]: [usize; 2],
    at: &[u32; LANES],
    weights: *const [[f32; LANES]; 4],
    values: &mut [f32; LANES],
) {
    use std::arch::x86_64::*;
    macro_rules! load {
        ($at:expr) => {
            unsafe { _mm_loadu_ps($at) }
        };
    }
    let w: [[__m512; 4]; 3] = unsafe { (weights as *const [[__m512; 4]; 3]).read_unaligned() };
    // Four voxels' weights along x side by side.
    let (a, b) = (_mm512_unpacklo_ps(w[2][0], w[2][1]), _mm512_unpackhi_ps(w[2][0], w[2][1]));
    let (c, d) = (_mm512_unpacklo_ps(w[2][2], w[2][3]), _mm512_unpackhi_ps(w[2][2], w[2][3]));
    let wx = [
        _mm512_shuffle_ps::<0x44>(a, c),
        _mm512_shuffle_ps::<0xee>(a, c),
        _mm512_shuffle_ps::<0x44>(b, d),
        _mm512_shuffle_ps::<0xee>(b, d),
    ];
    macro_rules! four {
        ($j:literal) => {{
            let from = coefficients;
            let (p, q) = (from.wrapping_add(at[$j] as usize), from.wrapping_add(at[4 + $j] as usize));
            let (r, s) = (from.wrapping_add(at[8 + $j] as usize), from.wrapping_add(at[12 + $j] as usize));
            let mut wy = w[1];
            for y in 0..4 {
                wy[y] = _mm512_permute_ps::<{ 0x55 * $j }>(w[1][y]);
            }
            let mut total = _mm512_setzero_ps();
            for z in 0..4 {
                let mut sum = _mm512_setzero_ps();
                for y in 0..4 {
                    let step = z * plane + y * line;
                    let taps = _mm512_broadcast_f32x4(load!(p.wrapping_add(step)));
                    let taps = _mm512_mask_broadcast_f32x4(taps, 0x00f0, load!(q.wrapping_add(step)));
                    let taps = _mm512_mask_broadcast_f32x4(taps, 0x0f00, load!(r.wrapping_add(step)));
                    let taps = _mm512_mask_broadcast_f32x4(taps, 0xf000, load!(s.wrapping_add(step)));
                    sum = _mm512_fmadd_ps(wy[y], taps, sum);
                }
                total = _mm512_fmadd_ps(_mm512_permute_ps::<{ 0x55 * $j }>(w[0][z]), sum, total);
            }
            _mm512_mul_ps(total, wx[$j])
        }};
    }
    let [a, b, c, d] = [four!(0), four!(1), four!(2), four!(3)];
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let sums = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(ab, cd), _mm512_shuffle_ps::<0xee>(ab, cd));
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), sums) };
}

/// A voxel near a face: indices are mirrored there.
#[inline(never)]
fn border<const T: usize>(of: &Field, first: [i64; 3], [wz, wy, wx]: &[[f32; T]; 3]) -> f32 {
    let [oz, oy, ox]: [[usize; T]; 3] = std::array::from_fn(|d| {
        std::array::from_fn(|k| {
            spline::mirror(first[d] + k as i64, of.shape[d]).saturating_sub(of.low[d]).min(of.size[d] - 1)
        })
    });
    let mut total = 0f32;
    for (iz, wz) in oz.iter().zip(wz) {
        for (iy, wy) in oy.iter().zip(wy) {
            let line = &of.coefficients[(iz * of.size[1] + iy) * of.size[2]..][..of.size[2]];
            total += wz * wy * ox.iter().zip(wx).map(|(&i, w)| w * line[i]).sum::<f32>();
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_equal_single_voxels<const T: usize>() {
        let (shape, patch) = ([9, 8, 40], [7, 6, 37]);
        let volume: Vec<f32> = (0..9 * 8 * 40u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7).collect();
        let mut coefficients = vec![0.0; volume.len()];
        spline::prefilter(&volume, shape, [0; 3], shape, &mut coefficients);
        let affine = [[0.9, 0.06, -0.03, 0.9], [-0.05, 0.92, 0.02, 0.6], [0.04, -0.02, 0.97, 1.3]];
        for fill in [Some(0.5), None] {
            let of = Field {
                coefficients: &coefficients,
                size: shape,
                low: [0; 3],
                shape,
                affine: &affine,
                bend: None,
                fill,
            };
            let mut out = vec![0.0; patch.iter().product()];
            taps::<T>(&of, patch, &mut out);
            let mut row = vec![0.0; patch[2]];
            for (i, fast) in out.chunks(patch[2]).enumerate() {
                let (z, y) = (i / patch[1], i % patch[1]);
                row_body::<T, 1>(&of, z, y, &mut row);
                for x in 0..patch[2] {
                    let p = place::<T>(&of, None, [z, y, x], 1);
                    let want = match fill {
                        Some(fill) if !p.within[0] => fill,
                        _ => border(&of, p.first.map(|f| f[0] as i64), &p.weights.map(|w| w.map(|w| w[0]))),
                    };
                    assert!((fast[x] - want).abs() < 2e-4 && (row[x] - want).abs() < 2e-4, "{z} {y} {x}");
                }
            }
        }
    }

    #[test]
    fn rows_of_sixteen_equal_single_voxels() {
        rows_equal_single_voxels::<2>();
        rows_equal_single_voxels::<4>();
    }
}
