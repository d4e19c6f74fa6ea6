//! The GPU: memory, transfers and launches of the kernels of `ops/*/kernel.cu`, behind one small trait.
//!
//! Only the worker thread talks to the driver; a piece of memory may be dropped anywhere and waits in the pool. All work
//! runs on one stream in the order of the calls, so memory that is given back may serve the next call at once; a second
//! stream brings what the next step needs (`ahead`).
//! `cuda` is the driver of the product; the cargo feature `shim` puts `host` in its place, which emulates the same kernels
//! (`native/shim`), so that every line above the driver is tested without a GPU.

pub mod ahead;
mod arena;
#[cfg(not(feature = "shim"))]
mod cublas;
#[cfg(not(feature = "shim"))]
mod cuda;
pub mod failure;
mod graphs;
#[cfg(feature = "shim")]
mod host;
pub mod kept;
#[cfg(not(feature = "shim"))]
mod kernels;
mod product;

pub use arena::{Piece, empty, live_bytes, peak_bytes, reset_peak};
#[cfg(not(feature = "shim"))]
use cuda::{open, pretend};
#[cfg(feature = "shim")]
use host::{kernels, open, pretend};

use crate::abi::Result;
use crate::element::Dtype;
use crate::memory::Plain;
use graphs::{Args, Graphs, Work};
pub use product::{Product, by_library, product};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What a card says of itself.
#[derive(Clone, Default)]
pub struct Card {
    pub name: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// It has the instructions of compute capability 9.0.
    pub hopper: bool,
    /// Its compute capability (90: 9.0) where its driver takes none of the compiled kernels in the library; else 0.
    pub compile: u32,
}

/// What runs kernels. Calls come from the worker thread alone; an `Err` is one sentence for the user.
pub trait Driver: Send {
    fn card(&self) -> Card;
    /// None: the memory of the card is used up.
    fn allocate(&mut self, bytes: usize) -> Result<Option<u64>>;
    fn free(&mut self, at: u64);
    /// Bytes of the card that nobody uses, other programs neither.
    fn available(&mut self) -> Result<u64>;
    /// A copy of `from` on the host that the card can read until the next `synchronize`; None: there is no room before that.
    fn stage(&mut self, from: &[u8]) -> Result<Option<u64>>;
    /// From a staged copy to the card.
    fn send(&mut self, staged: u64, bytes: usize, to: u64) -> Result<()>;
    /// Page-locked memory for the second stream, and back.
    fn lock(&mut self, bytes: usize) -> Result<u64>;
    fn unlock(&mut self, at: u64) -> Result<()>;
    /// On the second stream: from locked memory to the card, and the mark of a lane (0 or 1) behind that.
    fn send_beside(&mut self, locked: u64, bytes: usize, to: u64) -> Result<()>;
    fn sent(&mut self, lane: usize) -> Result<()>;
    /// The second stream waits for the work so far; the work that follows waits for the last mark of a lane. Never captured.
    fn fork(&mut self) -> Result<()>;
    fn join(&mut self, lane: usize) -> Result<()>;
    /// Waits once for all work before it.
    fn download(&mut self, parts: &mut [(u64, &mut [u8])]) -> Result<()>;
    /// Between two places on the card.
    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()>;
    fn clear(&mut self, at: u64, bytes: usize) -> Result<()>;
    fn launch(&mut self, kernel: &str, grid: [u32; 3], threads: u32, shared: u32, args: &[Arg]) -> Result<()>;
    fn synchronize(&mut self) -> Result<()>;
    /// Notes a moment of the stream; `milliseconds` between the last two, after a `synchronize`.
    fn mark(&mut self) -> Result<()>;
    fn milliseconds(&mut self) -> Result<f64>;
    /// What is asked for from here to `captured` is not done, but becomes a graph.
    fn capture(&mut self) -> Result<()>;
    fn captured(&mut self) -> Result<usize>;
    /// Does what a graph holds.
    fn replay(&mut self, graph: usize) -> Result<()>;
    /// Drops all graphs.
    fn forget(&mut self);
    /// Whether a library of matrix products is there and computes this one.
    fn multiplies(&mut self, product: &Product) -> Result<bool>;
    fn product(&mut self, product: &Product) -> Result<()>;
}

/// The driver, and what waits to be handed to it.
struct Session {
    driver: Box<dyn Driver>,
    graphs: Graphs,
}

impl Session {
    fn take(&mut self, work: Work) -> Result<()> {
        self.graphs.take(work, self.driver.as_mut())
    }
    fn flush(&mut self) -> Result<()> {
        self.graphs.flush(self.driver.as_mut())
    }
    fn synchronize(&mut self) -> Result<()> {
        self.flush()?;
        self.driver.synchronize()?;
        ahead::waited();
        Ok(())
    }
    fn upload(&mut self, from: &[u8], to: u64) -> Result<()> {
        let mut staged = self.driver.stage(from)?;
        if staged.is_none() {
            self.synchronize()?;
            staged = self.driver.stage(from)?;
        }
        let staged = staged.ok_or_else(|| format!("an upload of {} MiB is too large", from.len() >> 20))?;
        self.take(Work::Send { staged, bytes: from.len(), to })
    }
}

static ACTIVE: AtomicBool = AtomicBool::new(false);
static DRIVER: Mutex<Option<Session>> = Mutex::new(None);
static LAUNCHES: AtomicU64 = AtomicU64::new(0);
static UPLOADS: AtomicU64 = AtomicU64::new(0);
static DOWNLOADS: AtomicU64 = AtomicU64::new(0);
static WAITS: AtomicU64 = AtomicU64::new(0);
/// There is work that nobody has waited for.
static BUSY: AtomicBool = AtomicBool::new(false);
/// Ops that computed on the host although a GPU is in use, and how often: file and line of their job.
static ON_HOST: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Whether ops launch kernels.
pub fn active() -> bool {
    ACTIVE.load(Relaxed)
}

/// Turns the GPU on or off for the work that follows; on the worker thread.
pub fn activate(on: bool) -> Result<()> {
    let mut driver = DRIVER.lock().unwrap_or_else(|e| e.into_inner());
    if on && driver.is_none() {
        *driver = Some(Session { driver: open()?, graphs: Graphs::default() });
    }
    ACTIVE.store(on, Relaxed);
    Ok(())
}

/// What the emulated card is made to be, for tests: `vx_device_pretend`.
#[cfg_attr(not(feature = "shim"), allow(dead_code))]
#[derive(Clone, Copy)]
pub struct Pretended {
    memory: u64,
    taken: u64,
    version: u32,
    launches: u32,
    code: u32,
}

/// Why work on the GPU failed, where it cannot be a `Result`: a panic of this type is told to the user as it stands.
pub struct Failure(pub String);

fn with<R>(work: impl FnOnce(&mut Session) -> Result<R>) -> Result<R> {
    BUSY.store(true, Relaxed);
    let mut session = DRIVER.lock().unwrap_or_else(|e| e.into_inner());
    work(session.as_mut().ok_or("no GPU is in use")?)
}

/// As `with`, for places that return no `Result`.
fn must<R>(work: impl FnOnce(&mut Session) -> Result<R>) -> R {
    with(work).unwrap_or_else(|text| std::panic::panic_any(Failure(text)))
}

/// A place in the memory of the card, as kernels take it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At(pub u64);
pub const NULL: At = At(0);

/// What a kernel may take by value: numbers of the kernel's own width, addresses, and `repr(C)` structs of these.
pub trait Value: Copy {}
impl Value for At {}
impl Value for i32 {}
impl Value for i64 {}
impl Value for f32 {}
impl Value for f64 {}

/// One argument of a launch.
pub struct Arg {
    pub at: *mut c_void,
    pub bytes: usize,
}

/// `value` as an argument; it lives through the launch.
pub fn arg<T: Value>(value: &T) -> Arg {
    Arg { at: value as *const T as *mut c_void, bytes: size_of::<T>() }
}

/// Launches `kernel`: grid, threads of a block, bytes of shared memory. Use `launch!`.
pub fn launch(kernel: &str, grid: [usize; 3], threads: u32, shared: usize, args: &[Arg]) -> Result<()> {
    if grid.contains(&0) {
        return Ok(());
    }
    LAUNCHES.fetch_add(1, Relaxed);
    let [x, y, z] = grid;
    if x > i32::MAX as usize || y > 65535 || z > 65535 {
        return Err(format!("{kernel}: a grid of {x} x {y} x {z} blocks is too large; use a smaller batch"));
    }
    let grid = grid.map(|v| v as u32);
    with(|s| {
        if !s.graphs.on {
            return s.driver.launch(kernel, grid, threads, shared as u32, args);
        }
        let (kernel, args) = (kernel.to_string(), Args::copied(args));
        s.take(Work::Launch { kernel, grid, threads, shared: shared as u32, args })
    })
}

/// `launch!(name, grid, threads, shared bytes, arguments...)`.
#[macro_export]
macro_rules! launch {
    ($kernel:expr, $grid:expr, $threads:expr, $shared:expr, $($arg:expr),+ $(,)?) => {
        $crate::gpu::launch(&$kernel, $grid, $threads, $shared, &[$($crate::gpu::arg(&$arg)),+])
    };
}

/// Kernels for f32 have the name of those for bf16 and a suffix.
pub fn typed(kernel: &'static str, dtype: Dtype) -> Cow<'static, str> {
    match dtype {
        Dtype::Bf16 => kernel.into(),
        Dtype::F32 => format!("{kernel}_f32").into(),
    }
}

/// Values that a thread moves at once in rows of c channels (`wide_rows` of device.cuh).
fn wide(c: usize, dtype: Dtype) -> usize {
    let most = 16 / dtype.bytes();
    if c.is_multiple_of(most) { most } else { 1 }
}

/// Sums over rows of c channels by kernels with `RowSums` of device.cuh: blocks add slices, `fold_slices` adds those up.
pub struct Slices {
    /// Rows of a slice.
    pub rows: i32,
    /// Slices.
    pub count: usize,
    /// Blocks along z for the channels of a row, and bytes of shared memory.
    pub lines: usize,
    pub shared: usize,
}

impl Slices {
    /// For the rows of each of `samples`, `halves` sums per channel. How many is fixed, not up to the card, so that the bits
    /// are, too.
    pub fn new(rows: usize, c: usize, dtype: Dtype, halves: usize, samples: usize) -> Slices {
        const BLOCKS: usize = 528;
        let wide = wide(c, dtype);
        let lines = (c / wide).div_ceil(256);
        let slice = rows.div_ceil((BLOCKS / lines / samples).max(1)).max(32);
        Slices {
            rows: slice as i32,
            count: rows.div_ceil(slice),
            lines,
            shared: halves * wide * 256 * size_of::<f32>(),
        }
    }
    pub fn grid(&self) -> [usize; 3] {
        [self.count, 1, self.lines]
    }
}

/// Grid of kernels with `fold_slices`, for n sums.
pub fn fold(n: usize) -> [usize; 3] {
    one_each(32 * n)
}

/// Grid of 256 threads per block for kernels that step through `values` with any grid.
pub fn over(values: usize) -> [usize; 3] {
    [values.div_ceil(256).min(132 * 16), 1, 1]
}

/// Grid with one thread of 256 per value.
pub fn one_each(values: usize) -> [usize; 3] {
    [values.div_ceil(256), 1, 1]
}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    unsafe { std::slice::from_raw_parts(values.as_ptr() as *const u8, size_of_val(values)) }
}

/// A copy of small tables on the card.
pub fn upload<T: Plain>(values: &[T]) -> Piece {
    let piece = Piece::take(size_of_val(values));
    must(|s| s.upload(bytes_of(values), piece.at().0));
    piece
}

/// Working memory of an op, with whatever was there.
pub fn scratch<T>(values: usize) -> Piece {
    Piece::take(values * size_of::<T>())
}

/// Overwrites values on the card.
pub fn write<T: Plain>(values: &[T], to: At) {
    upload_to(bytes_of(values), to);
}

pub(crate) fn upload_to(values: &[u8], to: At) {
    UPLOADS.fetch_add(1, Relaxed);
    must(|s| s.upload(values, to.0));
}

/// Copies to the host: one wait for all parts.
pub(crate) fn download(parts: &mut [(u64, &mut [u8])]) {
    DOWNLOADS.fetch_add(parts.len() as u64, Relaxed);
    WAITS.fetch_add(1, Relaxed);
    must(|s| s.flush().and_then(|()| s.driver.download(parts)));
    ahead::waited();
    BUSY.store(false, Relaxed);
}

/// Copies between two places on the card.
pub fn copy(from: At, to: At, bytes: usize) -> Result<()> {
    with(|s| s.take(Work::Copy { from: from.0, to: to.0, bytes }))
}

/// Fills with zeros.
pub fn clear(at: At, bytes: usize) -> Result<()> {
    with(|s| s.take(Work::Clear { at: at.0, bytes }))
}

/// Waits for all work, where there is some; reports what failed in it.
pub fn synchronize() -> Result<()> {
    if !active() || !BUSY.load(Relaxed) {
        return Ok(());
    }
    WAITS.fetch_add(1, Relaxed);
    with(|s| s.synchronize())?;
    BUSY.store(false, Relaxed);
    Ok(())
}

/// Notes that an op computes on the host while a GPU is in use.
pub(crate) fn note_host(job: &'static std::panic::Location<'static>) {
    if let Some((_, file)) = job.file().rsplit_once("ops/") {
        *ON_HOST.lock().unwrap().entry(format!("{file}:{}", job.line())).or_default() += 1;
    }
}

/// Does `work` on the worker thread, after all that came before.
fn done<R: Default + Send + 'static>(work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    let (sender, receiver) = std::sync::mpsc::channel();
    crate::queue::enqueue(move || work().map(|result| sender.send(result).unwrap_or(())));
    crate::queue::wait()?;
    Ok(receiver.recv().unwrap_or_default())
}

/// The card in use.
pub fn card() -> Card {
    DRIVER.lock().unwrap_or_else(|e| e.into_inner()).as_ref().map(|s| s.driver.card()).unwrap_or_default()
}

/// What has happened since the last call, as JSON: card, launches, transfers, memory, and the ops that ran on the host.
pub fn report() -> Result<String> {
    let card = card();
    let mut session = DRIVER.lock().unwrap_or_else(|e| e.into_inner());
    let graphs = session.as_mut().map_or(0, |s| std::mem::take(&mut s.graphs.replayed));
    drop(session);
    let on_host = std::mem::take(&mut *ON_HOST.lock().unwrap());
    let on_host: Vec<String> = on_host.iter().map(|(op, n)| format!("{op:?}:{n}")).collect();
    let count = |n: &AtomicU64| n.swap(0, Relaxed);
    Ok(format!(
        "{{\"card\":{:?},\"memory\":{},\"launches\":{},\"uploads\":{},\"ahead\":{},\"downloads\":{},\"waits\":{},\"graphs\":{graphs},\
         \"allocations\":{},\"live\":{},\"peak\":{},\"held\":{},\"on_host\":{{{}}}}}",
        card.name,
        card.memory,
        count(&LAUNCHES),
        count(&UPLOADS),
        ahead::take_sent(),
        count(&DOWNLOADS),
        count(&WAITS),
        arena::take_allocations(),
        live_bytes(),
        peak_bytes(),
        arena::held_bytes(),
        on_host.join(",")
    ))
}

exports! {
    /// Computes on the GPU (true) or on the CPU (false) from now on; an error says in one sentence why the GPU does not work.
    fn vx_device_use(gpu: bool) { done(move || activate(gpu)).map(|()| 0.0) }
    /// 1 while ops launch kernels.
    fn vx_device_active() { Ok(active() as u32 as f64) }
    /// Writes what the GPU did since the last call as JSON in UTF-8, and returns the byte count.
    fn vx_device_report(text: slice_mut[u8]) {
        let report = report()?;
        let n = report.len().min(text.len());
        text[..n].copy_from_slice(&report.as_bytes()[..n]);
        Ok(n as f64)
    }
    /// Waits, then bytes of the card that can still be had: free, or held by us and not in use.
    fn vx_device_free_bytes() {
        done(|| Ok(with(|s| s.driver.available())? as f64 + arena::free_bytes() as f64))
    }
    /// Waits, then holds `bytes` of the card in one piece for what comes. 0: the card has less.
    fn vx_device_reserve(bytes: f64) { done(move || Ok(arena::reserve(bytes as usize) as u32 as f64)) }
    /// Closes the card; the emulated one, and it alone, is another from now on: of `memory` bytes of which other programs use
    /// `taken`, with a driver for CUDA `version` (12040: 12.4), whose launch number `launches` fails with `code` (0: none does;
    /// 1: no launch fails, but waits for the second stream are forgotten).
    fn vx_device_pretend(memory: f64, taken: f64, version: u32, launches: u32, code: u32) {
        done(move || {
            let emulated = Pretended { memory: memory as u64, taken: taken as u64, version, launches, code };
            pretend(emulated)?;
            empty();
            ACTIVE.store(false, Relaxed);
            product::LIBRARY.store(false, Relaxed);
            *DRIVER.lock().unwrap_or_else(|e| e.into_inner()) = None;
            Ok(0.0)
        })
    }
    /// Whether work that comes again is done as CUDA graphs from now on.
    fn vx_device_graphs(on: bool) { done(move || with(|s| s.graphs.turn(on, s.driver.as_mut()))).map(|()| 0.0) }
    /// Whether linear layers that follow are multiplied by cuBLASLt, which is opened when it is first turned on. 1: they are;
    /// 0: it is off, not there, or does not work with the GPU in use.
    fn vx_device_products(on: bool) {
        done(move || {
            let probe = Product::new([64; 3], [true, false], [0; 3]);
            let there = on && active() && with(|s| s.driver.multiplies(&probe)).unwrap_or(false);
            product::LIBRARY.store(there, Relaxed);
            Ok(there as u32 as f64)
        })
    }
    /// Notes a moment of the GPU's work (enqueued).
    fn vx_device_mark() { crate::queue::enqueue(|| with(|s| { s.flush()?; s.driver.mark() })); Ok(0.0) }
    /// Waits, then milliseconds of the GPU between the last two marks.
    fn vx_device_milliseconds() { done(|| with(|s| { s.synchronize()?; s.driver.milliseconds() })) }
}
