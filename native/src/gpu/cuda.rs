//! The CUDA driver, through cudarc: one context, two streams, kernels from the images that build.rs compiled with nvcc, or
//! from NVRTC where there are none that the driver takes (`kernels`).

use super::cublas::Lt;
use super::failure::{refused, sentence};
use super::kernels;
use super::{Arg, Card, Driver, Pretended, Product};
use crate::abi::Result;
use cudarc::driver::result::{self, DriverError, ctx, device, event, graph, module, primary_ctx, stream};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as FunctionAttribute};
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};

/// Page-locked memory that uploads go through, so that they need not wait for the card; it grows to what a step uploads.
const STAGING: usize = 64 << 20;
/// Page-locked memory that small downloads go through: one wait serves them all.
const RETURNED: usize = 64 << 10;

struct Function {
    at: sys::CUfunction,
    /// Bytes of shared memory that it may ask for.
    shared: u32,
}

struct Cuda {
    card: Card,
    stream: sys::CUstream,
    /// The second stream; what it waits for, and the marks of its lanes.
    beside: sys::CUstream,
    forked: sys::CUevent,
    lanes: [sys::CUevent; 2],
    staging: *mut u8,
    /// Bytes of it, how many of them copies under way may still read, and how many it should have had.
    room: usize,
    staged: usize,
    wanted: usize,
    returned: *mut u8,
    functions: HashMap<String, Function>,
    marks: [sys::CUevent; 2],
    graphs: Vec<sys::CUgraphExec>,
    products: Option<Lt>,
}
unsafe impl Send for Cuda {} // the handles are the driver's; the worker thread alone uses them

fn told<T>(what: &str, outcome: std::result::Result<T, DriverError>) -> Result<T> {
    outcome.map_err(|e| format!("{what}: {}", sentence(e.0 as u32)))
}

/// A real card is what it is.
pub fn pretend(_: Pretended) -> Result<()> {
    Err("only the emulated card of deno task shim can be made another".into())
}

/// The first card that the driver offers, checked.
pub fn open() -> Result<Box<dyn Driver>> {
    if !unsafe { sys::is_culib_present() } {
        return Err("no CUDA driver is installed on this machine".into());
    }
    result::init().map_err(|e| sentence(e.0 as u32))?;
    let mut version: c_int = 0;
    told("the CUDA driver", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
    if told("the CUDA driver", device::get_count())? == 0 {
        return Err(sentence(sys::CUresult::CUDA_ERROR_NO_DEVICE as u32));
    }
    let at = told("the GPU", device::get(0))?;
    let name = told("the GPU", device::get_name(at))?;
    let attribute = |which| told(&name, unsafe { device::get_attribute(at, which) });
    let architecture = 10 * attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
        + attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    if let Some(why) = refused(&name, architecture, version) {
        return Err(why);
    }
    let memory = told(&name, unsafe { device::total_mem(at) })? as u64;
    let context = told(&name, unsafe { primary_ctx::retain(at) })?;
    told(&name, unsafe { ctx::set_current(context) })?;
    let stream = told(&name, stream::create(stream::StreamKind::NonBlocking))?;
    let locked = |bytes| told("page-locked memory", unsafe { result::malloc_host(bytes, 0) }).map(|at| at as *mut u8);
    let (staging, returned) = (locked(STAGING)?, locked(RETURNED)?);
    let beside = told(&name, stream::create(stream::StreamKind::NonBlocking))?;
    let new_event = |flag| told("an event", event::create(flag));
    let (timed, plain) = (sys::CUevent_flags::CU_EVENT_DEFAULT, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
    let marks = [new_event(timed)?, new_event(timed)?];
    let (forked, lanes) = (new_event(plain)?, [new_event(plain)?, new_event(plain)?]);
    let fits = module_of(&kernels::words(kernels::sample())).map(|sample| unsafe { module::unload(sample) }).is_ok();
    let compile = if fits { 0 } else { architecture as u32 };
    let card = Card { name, memory, hopper: architecture == 90, compile };
    Ok(Box::new(Cuda {
        card,
        stream,
        beside,
        forked,
        lanes,
        staging,
        room: STAGING,
        staged: 0,
        wanted: 0,
        returned,
        functions: HashMap::new(),
        marks,
        graphs: Vec::new(),
        products: None,
    }))
}

/// What a compiler made, on the card.
fn module_of(image: &[u64]) -> Result<sys::CUmodule> {
    if image.is_empty() {
        return Err("the library was built with no nvcc and has no compiled kernels".into());
    }
    unsafe { module::load_data(image.as_ptr() as *const c_void) }.map_err(|e| sentence(e.0 as u32))
}

impl Cuda {
    /// The module of an op.
    fn load(&self, source: &kernels::Source) -> Result<sys::CUmodule> {
        let image = kernels::compiled(source.op).unwrap_or_else(|| kernels::words(source.image));
        module_of(&image).map_err(|why| format!("the kernels of {}: {why}", source.op))
    }
    /// A kernel ready for `shared` bytes.
    fn function(&mut self, kernel: &str, shared: u32) -> Result<sys::CUfunction> {
        if !self.functions.contains_key(kernel) {
            let source = kernels::source_of(kernel)?;
            let loaded = self.load(source)?;
            for name in source.kernels {
                let c_name = CString::new(*name).expect("a name");
                let at = told(name, unsafe { module::get_function(loaded, c_name) })?;
                self.functions.insert(name.to_string(), Function { at, shared: 48 << 10 });
            }
        }
        let function = self.functions.get_mut(kernel).expect("loaded above");
        if shared > function.shared {
            let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            told(kernel, unsafe { result::function::set_function_attribute(function.at, most, shared as c_int) })?;
            function.shared = shared;
        }
        Ok(function.at)
    }
}

impl Cuda {
    /// More page-locked memory, while no copy is under way. Graphs that read the old one are not launched again: what is
    /// staged has another address from now on.
    fn grow(&mut self, bytes: usize) -> Result<()> {
        let room = bytes.next_power_of_two();
        let new = told("page-locked memory", unsafe { result::malloc_host(room, 0) })? as *mut u8;
        told("page-locked memory", unsafe { result::free_host(self.staging as *mut c_void) })?;
        (self.staging, self.room) = (new, room);
        Ok(())
    }
}

impl Driver for Cuda {
    fn card(&self) -> Card {
        self.card.clone()
    }
    fn allocate(&mut self, bytes: usize) -> Result<Option<u64>> {
        match unsafe { result::malloc_sync(bytes) } {
            Ok(at) => Ok(Some(at)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            Err(error) => Err(sentence(error.0 as u32)),
        }
    }
    fn free(&mut self, at: u64) {
        let _ = unsafe { result::free_sync(at) }; // a failure shows in the next call
    }
    fn available(&mut self) -> Result<u64> {
        told(&self.card.name, result::mem_get_info()).map(|(free, _)| free as u64)
    }
    fn stage(&mut self, from: &[u8]) -> Result<Option<u64>> {
        let end = self.staged + from.len();
        if end > self.room && self.staged > 0 {
            self.wanted = self.wanted.max(end);
            return Ok(None);
        }
        if end > self.room {
            self.grow(end)?;
        }
        let at = unsafe { self.staging.add(self.staged) };
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), at, from.len()) };
        self.staged = end.next_multiple_of(256);
        Ok(Some(at as u64))
    }
    fn send(&mut self, staged: u64, bytes: usize, to: u64) -> Result<()> {
        let from = unsafe { std::slice::from_raw_parts(staged as *const u8, bytes) };
        told("upload", unsafe { result::memcpy_htod_async(to, from, self.stream) })
    }
    fn lock(&mut self, bytes: usize) -> Result<u64> {
        told("page-locked memory", unsafe { result::malloc_host(bytes, 0) }).map(|at| at as u64)
    }
    fn unlock(&mut self, at: u64) -> Result<()> {
        told("page-locked memory", unsafe { result::free_host(at as *mut c_void) })
    }
    fn send_beside(&mut self, locked: u64, bytes: usize, to: u64) -> Result<()> {
        let from = unsafe { std::slice::from_raw_parts(locked as *const u8, bytes) };
        told("upload", unsafe { result::memcpy_htod_async(to, from, self.beside) })
    }
    fn sent(&mut self, lane: usize) -> Result<()> {
        told("an event", unsafe { event::record(self.lanes[lane], self.beside) })
    }
    fn fork(&mut self) -> Result<()> {
        told("an event", unsafe { event::record(self.forked, self.stream) })?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        told("an event", unsafe { stream::wait_event(self.beside, self.forked, flags) })
    }
    fn join(&mut self, lane: usize) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        told("an event", unsafe { stream::wait_event(self.stream, self.lanes[lane], flags) })
    }
    fn download(&mut self, parts: &mut [(u64, &mut [u8])]) -> Result<()> {
        let small = parts.iter().map(|(_, to)| to.len()).sum::<usize>() <= RETURNED;
        let mut at = 0;
        for (from, to) in parts.iter_mut() {
            let locked =
                unsafe { std::slice::from_raw_parts_mut(self.returned.add(at), if small { to.len() } else { 0 }) };
            at += locked.len();
            let to = if small { locked } else { &mut **to };
            told("download", unsafe { result::memcpy_dtoh_async(to, *from, self.stream) })?;
        }
        self.synchronize()?;
        at = 0;
        for (_, to) in parts.iter_mut().filter(|_| small) {
            to.copy_from_slice(unsafe { std::slice::from_raw_parts(self.returned.add(at), to.len()) });
            at += to.len();
        }
        Ok(())
    }
    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()> {
        told("copy", unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) })
    }
    fn clear(&mut self, at: u64, bytes: usize) -> Result<()> {
        told("clear", unsafe { result::memset_d8_async(at, 0, bytes, self.stream) })
    }
    fn launch(&mut self, kernel: &str, grid: [u32; 3], threads: u32, shared: u32, args: &[Arg]) -> Result<()> {
        let function = self.function(kernel, shared)?;
        let mut at: Vec<*mut c_void> = args.iter().map(|a| a.at).collect();
        let (grid, block) = ((grid[0], grid[1], grid[2]), (threads, 1, 1));
        told(kernel, unsafe { result::launch_kernel(function, grid, block, shared, self.stream, &mut at) })
    }
    fn synchronize(&mut self) -> Result<()> {
        self.staged = 0;
        told("the GPU", unsafe { stream::synchronize(self.stream) })?;
        if self.wanted > self.room { self.grow(self.wanted) } else { Ok(()) }
    }
    fn mark(&mut self) -> Result<()> {
        self.marks.swap(0, 1);
        told("an event", unsafe { event::record(self.marks[1], self.stream) })
    }
    fn milliseconds(&mut self) -> Result<f64> {
        told("an event", unsafe { event::elapsed(self.marks[0], self.marks[1]) }).map(f64::from)
    }
    fn capture(&mut self) -> Result<()> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        told("a graph", unsafe { stream::begin_capture(self.stream, mode) })
    }
    fn captured(&mut self) -> Result<usize> {
        let captured = told("a graph", unsafe { stream::end_capture(self.stream) })?;
        let made = unsafe { graph::instantiate(captured, sys::CUgraphInstantiate_flags(0)) };
        told("a graph", unsafe { graph::destroy(captured) })?;
        self.graphs.push(told("a graph", made)?);
        Ok(self.graphs.len() - 1)
    }
    fn replay(&mut self, graph: usize) -> Result<()> {
        told("a graph", unsafe { graph::launch(self.graphs[graph], self.stream) })
    }
    fn forget(&mut self) {
        for graph in self.graphs.drain(..) {
            let _ = unsafe { graph::exec_destroy(graph) }; // a failure shows in the next call
        }
    }
    fn multiplies(&mut self, product: &Product) -> Result<bool> {
        if self.products.is_none() {
            self.products = Lt::open()?;
        }
        Ok(self.products.as_mut().is_some_and(|lt| lt.multiplies(product)))
    }
    fn product(&mut self, product: &Product) -> Result<()> {
        self.products.as_mut().expect("asked before").run(product, self.stream)
    }
}
