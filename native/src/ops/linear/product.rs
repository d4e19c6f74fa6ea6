//! c = a b^T + bias, cut so that what the inner loop reads again lies in a cache: the left factor's rows of a task and one
//! panel of the right factor in the second, all of the right factor, of a stretch of the summed index, in the third. Where the
//! left factor is small (few rows), reading the weights from memory is much of the work: each core packs the panels that it
//! multiplies, as it gets free (432 rows, 864 to 864 on two Zen 4 cores: 1.56 ms; by fixed shares of the 27 panels 1.65), and
//! asks for the next one while it does. The cuts depend on the shape alone, and so does the order of every sum.

use super::amx;
use super::kernel::{N, Tile};
use super::pack::Factor;
use crate::element::{Dtype, Element};
use crate::memory::Scratch;
use crate::ops::amx::SIDE;
use crate::ops::conv3d::direct::Shared;
use crate::wide;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of a row of one stretch of the summed index.
const DEPTH: usize = 9 << 10;
/// Bytes of the left factor that a task reads again and again.
const LEFT: usize = 384 << 10;
/// Tasks that a product is cut into where it has as many tiles.
const TASKS: usize = 16;
/// Bytes of a whole left factor that stay in the second cache, or nearly.
const THIN: usize = 1 << 20;
/// Lanes of a stretch for which a left factor is cut to that size (a step of Primus-M on two Zen 4 cores 2.10 s, cut 2.08);
/// shorter ones would store their sums too often.
const SHORTEST: usize = 512;
/// Parts of the last panel's rows, so that no core waits for long.
const ENDS: usize = 4;
/// Panels of the right factor that one task packs.
const PANELS: usize = 4;

/// What a product is added to, and what of it is wanted.
pub struct With<'a, C> {
    /// `[n]`, the same for every row.
    pub bias: Option<&'a [f32]>,
    /// Rows of n values, and which of them each row of the product is added to.
    pub onto: Option<(&'a [C], &'a [u32])>,
    /// Tiles that lie wholly below the diagonal are left out: their values are undefined.
    pub upper: bool,
}

impl<C: 'static> With<'_, C> {
    pub const NONE: With<'static, C> = With { bias: None, onto: None, upper: false };
}

/// c `[m][n]` = sum over `depth` of a(i, k) b(j, k), plus what `with` says. A lane is `G` values, `tile`
/// has `R` rows (`by_tile!`).
pub fn product<const G: usize, const R: usize, A: Element, B: Element, C: Element>(
    [m, n, depth]: [usize; 3],
    a: Factor<A>,
    b: Factor<B>,
    with: With<C>,
    c: &mut [C],
    tile: Tile,
) {
    let With { bias, onto, upper } = with;
    assert_eq!(c.len(), m * n, "a product writes outside its result");
    if m == 0 || n == 0 {
        return;
    }
    let panels = n.div_ceil(N);
    let thin = THIN / 4 / m;
    let most = if panels >= TASKS && thin >= SHORTEST { thin.min(DEPTH / 4) } else { DEPTH / 4 };
    let stretches = depth.div_ceil(most * G).max(1);
    let step = depth.div_ceil(stretches).next_multiple_of(G).max(G);
    let mut start = Scratch::<f32>::zeros(panels * N);
    if let Some(bias) = bias {
        start[..n].copy_from_slice(bias);
    }
    // Sums of more than one stretch wait in f32.
    let mut waiting = Scratch::<f32>::new(if stretches > 1 && C::DTYPE != Dtype::F32 { m * n } else { 0 });
    let waiting = Shared(waiting.as_mut_ptr());
    let out = Shared(c.as_mut_ptr());
    for stretch in 0..stretches {
        let span = stretch * step..depth.min((stretch + 1) * step);
        let lanes = lanes::<G, R>(span.len());
        // Sums of `rows` and of the columns of a panel; `meanwhile` runs before each tile, of as many.
        let columns =
            |rows: &Range<usize>, left: &[u32], panel: usize, right: &[u32], meanwhile: &dyn Fn(usize, usize)| {
                let beyond = |row: usize| upper && (panel + 1) * N <= row;
                if beyond(rows.start) {
                    return;
                }
                let tiles = rows.len().div_ceil(R);
                let mut sums = Scratch::<f32>::new(tiles * R * N);
                for (i, sums) in sums.chunks_exact_mut(R * N).enumerate() {
                    meanwhile(i, tiles);
                    if beyond(rows.start + i * R) {
                        break;
                    }
                    let left = &left[i * lanes * R..];
                    unsafe { tile(left.as_ptr(), right.as_ptr(), lanes, sums.as_mut_ptr(), false) };
                }
                let (first, width) = (rows.start * n + panel * N, N.min(n - panel * N));
                let sums = &mut sums[..rows.len() * N];
                if let (Some((base, index)), 0) = (onto, stretch) {
                    for (sums, &row) in sums.chunks_exact_mut(N).zip(&index[rows.clone()]) {
                        raise(&base[row as usize * n + panel * N..][..width], sums);
                    }
                }
                unsafe {
                    // What the sums of this stretch are added to: the bias, or those of the stretches before.
                    let (start, row) = match (stretch, C::DTYPE) {
                        (0, _) => (start.as_ptr().add(panel * N), 0),
                        (_, Dtype::F32) => (out.at(first) as *const f32, n),
                        _ => (waiting.at(first) as *const f32, n),
                    };
                    if C::DTYPE == Dtype::F32 || stretch == stretches - 1 {
                        put(sums, start, row, width, out.at(first), n);
                    } else {
                        put(sums, start, row, width, waiting.at(first), n);
                    }
                }
            };
        let panel_rows = |panel: usize| panel * N..n.min(panel * N + N);
        if m * lanes * 4 <= THIN && panels >= TASKS {
            let mut left = Scratch::<u32>::new(m.div_ceil(R) * lanes * R);
            left.par_chunks_mut((lanes * R).max(1)).enumerate().for_each(|(i, left)| {
                pack_left::<G, R, A>(a, i * R..m.min(i * R + R), span.clone(), lanes, left);
            });
            // A core takes the next panel as it begins one, and asks for it meanwhile; they share the last panel's rows.
            let part = |i: usize| m.div_ceil(R) * i / ENDS * R;
            let unit = |i: usize| match (i + 1).checked_sub(panels) {
                Some(end) => (panels - 1, part(end)..part(end + 1).min(m)),
                None => (i, 0..m),
            };
            let (count, taken) = (panels - 1 + ENDS, AtomicUsize::new(0));
            let take = || Some(taken.fetch_add(1, Relaxed)).filter(|&i| i < count).map(unit);
            (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).for_each(|_| {
                let (mut right, mut packed, mut now) = (Scratch::<u32>::new(lanes * N), panels, take());
                while let Some((panel, rows)) = now {
                    if packed != panel {
                        pack::<G, N, B>(b, panel_rows(panel), span.clone(), lanes, &mut right);
                        packed = panel;
                    }
                    now = take();
                    let left = &left[rows.start / R * lanes * R..];
                    columns(&rows, left, panel, &right, &|i, tiles| {
                        if let Some((next, _)) = now
                            && next != panel
                        {
                            b.ask(&panel_rows(next), &span, i, tiles);
                        }
                    });
                }
            });
            continue;
        }
        let mut right = Scratch::<u32>::new(panels * lanes * N);
        right.par_chunks_mut((PANELS * lanes * N).max(1)).enumerate().for_each(|(i, right)| {
            let first = i * PANELS * N;
            pack::<G, N, B>(b, first..n.min(first + PANELS * N), span.clone(), lanes, right);
        });
        let cut = Cut::new::<R>(m, panels, lanes);
        (0..cut.tasks()).into_par_iter().with_max_len(1).for_each(|task| {
            let (rows, range) = cut.task(task, m, panels);
            let mut left = Scratch::<u32>::new(rows.len().div_ceil(R) * lanes * R);
            pack_left::<G, R, A>(a, rows.clone(), span.clone(), lanes, &mut left);
            for panel in range {
                columns(&rows, &left, panel, &right[panel * lanes * N..], &|_, _| {});
            }
        });
    }
}

/// Lanes of `depth` values, padded to what the tile of `R` rows takes.
pub fn lanes<const G: usize, const R: usize>(depth: usize) -> usize {
    depth.div_ceil(G).next_multiple_of(if R == amx::M { SIDE } else { 1 })
}

/// Panels of `P` rows of `lanes` lanes, zeros where there is no value.
pub fn pack<const G: usize, const P: usize, E: Element>(
    f: Factor<E>,
    rows: Range<usize>,
    depth: Range<usize>,
    lanes: usize,
    out: &mut [u32],
) {
    let full = depth.len().div_ceil(G) * P;
    if full == lanes * P {
        return f.pack::<G, P>(rows, depth, out);
    }
    for (panel, out) in out.chunks_exact_mut(lanes * P).enumerate() {
        let first = rows.start + panel * P;
        let (values, padding) = out.split_at_mut(full);
        f.pack::<G, P>(first..rows.end.min(first + P), depth.clone(), values);
        padding.fill(0);
    }
}

/// Panels of the left factor as the tile of `R` rows reads them.
pub fn pack_left<const G: usize, const R: usize, E: Element>(
    f: Factor<E>,
    rows: Range<usize>,
    depth: Range<usize>,
    lanes: usize,
    out: &mut [u32],
) {
    pack::<G, R, E>(f, rows, depth, lanes, out);
    if R == amx::M {
        amx::turn_panels(out);
    }
}

/// How the result is cut into tasks: rows by panels of columns.
struct Cut {
    rows: usize,
    columns: usize,
    across: usize,
    down: usize,
}

impl Cut {
    fn new<const R: usize>(m: usize, panels: usize, lanes: usize) -> Cut {
        let tiles = m.div_ceil(R);
        let most = (LEFT / (4 * R * lanes.max(1))).clamp(1, 16);
        let tall = tiles.div_ceil(TASKS).min(most);
        let down = tiles.div_ceil(tall);
        let columns = panels.div_ceil((TASKS / down).clamp(1, panels));
        Cut { rows: tall * R, columns, down, across: panels.div_ceil(columns) }
    }
    fn tasks(&self) -> usize {
        self.down * self.across
    }
    fn task(&self, task: usize, m: usize, panels: usize) -> (Range<usize>, Range<usize>) {
        let (row, column) = (task / self.across * self.rows, task % self.across * self.columns);
        (row..m.min(row + self.rows), column..panels.min(column + self.columns))
    }
}

wide! {
    /// sums += base
    fn raise<C: Element>(base: &[C], sums: &mut [f32]) {
        sums.iter_mut().zip(base).for_each(|(s, b)| *s += b.to_f32());
    }
}

wide! {
    /// Rows of `N` sums, plus rows of `start` that are `row` apart, to rows of c that are `n` apart.
    fn put<C: Element>(sums: &[f32], start: *const f32, row: usize, width: usize, c: *mut C, n: usize) {
        for (i, sums) in sums.chunks_exact(N).enumerate() {
            let (start, c) = (start.wrapping_add(i * row), c.wrapping_add(i * n));
            if width == N {
                let mut values = [C::default(); N];
                for (j, (value, sum)) in values.iter_mut().zip(sums).enumerate() {
                    *value = C::from_f32(sum + unsafe { *start.add(j) });
                }
                unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), c, N) };
            } else {
                for (j, sum) in sums.iter().enumerate().take(width) {
                    unsafe { *c.add(j) = C::from_f32(sum + *start.add(j)) };
                }
            }
        }
    }
}
