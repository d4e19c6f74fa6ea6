//! The kernels of `kernel.cu` as the contract asks for them.

use super::Shape;
use crate::abi::Result;
use crate::element::Dtype;
use crate::gpu::{self, At, NULL, Piece, Slices, Value, one_each, over, typed};
use crate::launch;
use crate::tensor::{Buffer, Stretches, Tensor};

/// `Norm` of kernel.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Norm {
    samples: i32,
    c: i32,
    starts: At,
    slice: i32,
    slope: f32,
}
impl Value for Norm {}

/// A shape as the kernels take it; `starts` must live through the launches.
struct Rows {
    norm: Norm,
    _starts: Piece,
    slices: Slices,
    longest: usize,
}

impl Rows {
    /// For x of a type, and `halves` sums of each sample and channel.
    fn new(s: &Shape, dtype: Dtype, halves: usize, slope: f32) -> Rows {
        let starts = gpu::upload(&s.starts.iter().map(|&v| v as i32).collect::<Vec<_>>());
        let longest = s.starts.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let slices = Slices::new(longest, s.c, dtype, halves, s.samples());
        let norm = Norm { samples: s.samples() as i32, c: s.c as i32, starts: starts.at(), slice: slices.rows, slope };
        Rows { norm, _starts: starts, slices, longest }
    }
    /// Grid of the sums.
    fn sliced(&self) -> [usize; 3] {
        [self.slices.count, self.norm.samples as usize, self.slices.lines]
    }
    /// Grid that steps through the values of each sample.
    fn each(&self) -> [usize; 3] {
        let (values, samples) = (self.longest * self.norm.c as usize, self.norm.samples as usize);
        [values.div_ceil(256).min(over(usize::MAX)[0].div_ceil(samples).max(16)), samples, 1]
    }
    fn lines(&self) -> usize {
        (self.norm.samples * self.norm.c) as usize
    }
    fn partial(&self) -> Piece {
        gpu::scratch::<f32>(2 * self.slices.count * self.lines())
    }
    /// Adds the slices; `what` as in norm_fold: 0 sums, 1 mean, 2 reciprocal deviation.
    fn fold(&self, partial: &Piece, halves: usize, what: i32, eps: f32, out: At) -> Result<()> {
        let (grid, slices) = (gpu::fold(halves * self.lines()), self.slices.count as i32);
        launch!("norm_fold", grid, 256, 0, self.norm, partial.at(), slices, halves as i32, what, eps, out)
    }
}

fn place(tensor: &Option<Tensor>) -> At {
    tensor.as_ref().map_or(NULL, |t| t.device())
}

/// Statistics from those of stretches: x is not read again.
fn joined(s: &Shape, stretches: &Stretches, eps: f32, out: &Buffer) -> Result<()> {
    let starts: Vec<usize> = s.starts.iter().map(|v| v / stretches.rows).collect();
    let count = starts[starts.len() - 1];
    let rows = Rows::new(&Shape { starts, c: s.c }, Dtype::F32, 1, 1.0);
    let (partial, mean, means) = (rows.partial(), out.device_mut(), stretches.values.at());
    let [deviation, variances] = [(mean, rows.lines()), (means, count * s.c)].map(|(at, n)| At(at.0 + 4 * n as u64));
    let (grid, shared) = (rows.sliced(), rows.slices.shared);
    launch!("norm_mean_f32", grid, 256, shared, rows.norm, means, partial.at())?;
    rows.fold(&partial, 1, 1, 0.0, mean)?;
    launch!("norm_stretches", grid, 256, shared, rows.norm, means, variances, mean, partial.at())?;
    rows.fold(&partial, 1, 2, eps, deviation)
}

/// As `cpu::statistics`.
pub fn statistics(s: &Shape, x: &Buffer, eps: f32, out: &Buffer) -> Result<()> {
    let even = |t: &Stretches| s.starts.iter().all(|v| v % t.rows == 0);
    if let Some(stretches) = x.take_stretches().filter(even) {
        return joined(s, &stretches, eps, out);
    }
    let rows = Rows::new(s, x.dtype, 1, 1.0);
    let (partial, mean) = (rows.partial(), out.device_mut());
    let deviation = At(mean.0 + 4 * rows.lines() as u64);
    means(s, x, mean)?;
    let (grid, shared) = (rows.sliced(), rows.slices.shared);
    launch!(typed("norm_variance", x.dtype), grid, 256, shared, rows.norm, x.device(), mean, partial.at())?;
    rows.fold(&partial, 1, 2, eps, deviation)
}

/// Mean of each sample and channel.
pub fn means(s: &Shape, x: &Buffer, out: At) -> Result<()> {
    let rows = Rows::new(s, x.dtype, 1, 1.0);
    let (partial, shared) = (rows.partial(), rows.slices.shared);
    launch!(typed("norm_mean", x.dtype), rows.sliced(), 256, shared, rows.norm, x.device(), partial.at())?;
    rows.fold(&partial, 1, 1, 0.0, out)
}

/// As `cpu::forward`, written `to` memory of y; gamma, beta, residual.
pub fn apply(
    s: &Shape,
    x: &Buffer,
    statistics: &Buffer,
    [gamma, beta, residual]: [&Option<Tensor>; 3],
    slope: f32,
    to: At,
) -> Result<()> {
    let rows = Rows::new(s, x.dtype, 1, slope);
    let (gamma, beta, residual) = (place(gamma), place(beta), place(residual));
    let (kernel, statistics) = (typed("norm_apply", x.dtype), statistics.device());
    launch!(kernel, rows.each(), 256, 0, rows.norm, x.device(), statistics, gamma, beta, residual, to)
}

/// As `cpu::grad_sums`; x, dy.
pub fn grad_sums(
    s: &Shape,
    [x, dy]: [&Buffer; 2],
    statistics: &Buffer,
    [gamma, beta]: [&Option<Tensor>; 2],
    slope: f32,
    out: &Buffer,
) -> Result<()> {
    let (rows, kernel) = (Rows::new(s, x.dtype, 2, slope), typed("norm_grad_sums", x.dtype));
    let (partial, grid, shared) = (rows.partial(), rows.sliced(), rows.slices.shared);
    let (x, dy, statistics, gamma, beta) = (x.device(), dy.device(), statistics.device(), place(gamma), place(beta));
    launch!(kernel, grid, 256, shared, rows.norm, x, dy, statistics, gamma, beta, partial.at())?;
    rows.fold(&partial, 2, 0, 0.0, out.device_mut())
}

/// As `cpu::grad_inner`; x, y, dy.
pub fn grad_inner(
    s: &Shape,
    [x, y, dy]: [&Buffer; 3],
    statistics: &Buffer,
    slope: f32,
    inner: &Buffer,
    sums: &Buffer,
) -> Result<()> {
    let (kernel, to) = (typed("activation_leaky_grad", x.dtype), inner.device_mut());
    launch!(kernel, over(inner.len), 256, 0, y.device(), dy.device(), slope, inner.len as i64, to)?;
    grad_sums(s, [x, inner], statistics, [&None, &None], 1.0, sums)
}

/// As `cpu::grad_input`; x, dy.
pub fn grad_input(
    s: &Shape,
    [x, dy]: [&Buffer; 2],
    statistics: &Buffer,
    sums: &Buffer,
    [gamma, beta]: [&Option<Tensor>; 2],
    slope: f32,
    dx: &Buffer,
) -> Result<()> {
    let (rows, kernel, dx) = (Rows::new(s, x.dtype, 1, slope), typed("norm_grad_input", x.dtype), dx.device_mut());
    let (x, dy, statistics, sums) = (x.device(), dy.device(), statistics.device(), sums.device());
    launch!(kernel, rows.each(), 256, 0, rows.norm, x, dy, statistics, sums, place(gamma), place(beta), dx)
}

/// Half of the sums, added over the samples.
pub fn grad_affine(sums: &Buffer, half: usize, samples: usize, out: &Buffer) -> Result<()> {
    let (half, samples, c, to) = (half as i32, samples as i32, out.len as i32, out.device_mut());
    launch!("norm_grad_affine", one_each(out.len), 256, 0, sums.device(), half, samples, c, to)
}
