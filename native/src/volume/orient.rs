//! Reorientation to RAS by flips and permutations of axes only (closest canonical, as nibabel's).

use super::{Affine, Volume};

/// mm along z, y, x: the norms of an affine's columns.
pub fn norms(a: &Affine) -> [f64; 3] {
    [2, 1, 0].map(|j| (a[0][j] * a[0][j] + a[1][j] * a[1][j] + a[2][j] * a[2][j]).sqrt())
}

/// Determinant of the linear part.
pub fn determinant(a: &Affine) -> f64 {
    a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1]) - a[0][1] * (a[1][0] * a[2][2] - a[1][2] * a[2][0])
        + a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0])
}

/// For world axis x, y, z: the voxel axis that runs nearest to it and whether it runs backwards. The rotation is the
/// orthogonal polar factor of the direction cosines; voxel axes choose in turn.
fn canonical(a: &Affine) -> [(usize, bool); 3] {
    let n = norms(a);
    let mut r = [0, 1, 2].map(|i| [0, 1, 2].map(|j| a[i][j] / n[2 - j]));
    for _ in 0..60 {
        // Newton's iteration: the mean of the matrix and its inverse transposed (cofactors over determinant).
        let cofactor = |i: usize, j: usize| {
            let (p, q, s, t) = ((i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3);
            r[p][s] * r[q][t] - r[p][t] * r[q][s]
        };
        let c = [0, 1, 2].map(|i| [0, 1, 2].map(|j| cofactor(i, j)));
        let det = (0..3).map(|j| r[0][j] * c[0][j]).sum::<f64>();
        r = [0, 1, 2].map(|i| [0, 1, 2].map(|j| (r[i][j] + c[i][j] / det) / 2.0));
    }
    let mut out = [(0, false); 3];
    let mut free = vec![0, 1, 2];
    for axis in [0, 1, 2] {
        // The first of equals, as NumPy's argmax.
        let best = free.iter().copied().rev().max_by(|&p, &q| r[p][axis].abs().total_cmp(&r[q][axis].abs()));
        let world = best.expect("a free axis");
        free.retain(|&w| w != world);
        out[world] = (axis, r[world][axis] < 0.0);
    }
    out
}

/// Voxels in file order (x fastest, `size` along x, y, z) turned to RAS.
pub fn to_ras(data: Vec<f32>, size: [usize; 3], affine: &Affine) -> Volume {
    let axes = canonical(affine);
    let shape = [size[axes[2].0], size[axes[1].0], size[axes[0].0]];
    let stride = [1, size[0] as isize, (size[0] * size[1]) as isize];
    let mut start = 0;
    let mut turned = *affine;
    let step = axes.map(|(axis, back)| if back { -stride[axis] } else { stride[axis] });
    for (world, (axis, back)) in axes.into_iter().enumerate() {
        let last = (size[axis] - 1) as isize;
        for i in 0..3 {
            turned[i][world] = if back { -affine[i][axis] } else { affine[i][axis] };
            turned[i][3] += if back { affine[i][axis] * last as f64 } else { 0.0 };
        }
        start += if back { last * stride[axis] } else { 0 };
    }
    if step == stride {
        return Volume { shape, data, affine: turned };
    }
    let mut out = Vec::with_capacity(data.len());
    for z in 0..shape[0] as isize {
        for y in 0..shape[1] as isize {
            let row = start + z * step[2] + y * step[1];
            out.extend((0..shape[2] as isize).map(|x| data[(row + x * step[0]) as usize]));
        }
    }
    Volume { shape, data: out, affine: turned }
}
