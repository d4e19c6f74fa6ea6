//! Tensors: buffers of f32 or bf16 owned here, known outside as u32 handles (slot and generation).
//!
//! A buffer has no memory until the worker first writes it, so enqueueing a whole step ahead costs none; freed
//! memory goes to a pool (`memory`).

use crate::abi::Result;
use crate::element::{Dtype, Element, convert};
use crate::gpu::{self, At, Piece};
use crate::memory::{self, Memory, Planned, Scratch};
use crate::ops::linear::factors::Factors;
use crate::ops::norm::later::Later;
use crate::ops::rows;
use crate::{launch, queue};
use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex};

/// Mean and variance of each channel over stretches of `rows` rows, `[2][stretches][c]`, on the card: what the kernel that
/// wrote a tensor found on the way.
pub struct Stretches {
    pub rows: usize,
    pub values: Piece,
}

/// Sums of the values and of their squares over the rows of each sample, `[sample][2][c]`, and the first row of each sample (and
/// the number of rows): what the CPU that wrote a tensor found on the way.
pub struct Sums {
    pub starts: Vec<usize>,
    pub values: Vec<f64>,
}

/// A tensor's values. Only the worker thread touches them (or anyone, after a wait). They lie on the host, on the card,
/// or on both with the same content: reading on one side copies what the other has, writing drops the other's copy.
pub struct Buffer {
    pub len: usize,
    pub dtype: Dtype,
    memory: UnsafeCell<Option<Memory>>,
    device: UnsafeCell<Option<Piece>>,
    /// What the values are the product of, until someone reads them.
    factors: UnsafeCell<Option<Factors>>,
    stretches: UnsafeCell<Option<Stretches>>,
    /// What the values are made of on the card, until someone reads them there as they are.
    later: UnsafeCell<Option<Later>>,
    sums: UnsafeCell<Option<Sums>>,
    /// Keeps the count of a planned tensor.
    _planned: Option<Planned>,
}
unsafe impl Send for Buffer {}
unsafe impl Sync for Buffer {}

/// A shared tensor buffer.
pub type Tensor = Arc<Buffer>;

impl Buffer {
    pub fn with_len(len: usize, dtype: Dtype) -> Tensor {
        Arc::new(Buffer { _planned: Planned::new(len * dtype.bytes()), ..Buffer::empty(len, dtype) })
    }
    fn empty(len: usize, dtype: Dtype) -> Buffer {
        let (memory, device) = (UnsafeCell::new(None), UnsafeCell::new(None));
        let (factors, stretches, sums) = (UnsafeCell::new(None), UnsafeCell::new(None), UnsafeCell::new(None));
        let later = UnsafeCell::new(None);
        Buffer { len, dtype, memory, device, factors, stretches, later, sums, _planned: None }
    }
    fn bytes(&self) -> usize {
        self.len * self.dtype.bytes()
    }
    /// The factors of values that nobody has read, on the worker thread.
    pub fn factors(&self) -> Option<&Factors> {
        unsafe { &*self.factors.get() }.as_ref()
    }
    /// Where the values lie on the host; copies them there when only the card has them.
    fn at<E: Element>(&self) -> *mut E {
        assert!(self.dtype == E::DTYPE, "a {} tensor is read as {}", self.dtype.name(), E::DTYPE.name());
        if self.later().is_some() {
            self.device();
        }
        let (memory, device) = unsafe { (&mut *self.memory.get(), &*self.device.get()) };
        let fresh = memory.is_none();
        let at = memory.get_or_insert_with(|| Memory::take(self.bytes())).at();
        if let (true, Some(device)) = (fresh, device) {
            gpu::download(&mut [(device.at().0, unsafe { std::slice::from_raw_parts_mut(at, self.bytes()) })]);
        }
        if let Some(factors) = unsafe { &mut *self.factors.get() }.take() {
            factors.fill(unsafe { std::slice::from_raw_parts_mut(at as *mut f32, self.len) });
        }
        at as *mut E
    }
    /// The values, on the worker thread; `E` is the tensor's own type (`by_dtype!` chooses).
    pub fn of<E: Element>(&self) -> &[E] {
        unsafe { std::slice::from_raw_parts(self.at(), self.len) }
    }
    /// The values for writing, on the worker thread. Fresh memory may hold old content.
    #[allow(clippy::mut_from_ref)]
    pub fn of_mut<E: Element>(&self) -> &mut [E] {
        if let (true, Some(job)) = (gpu::active(), queue::job()) {
            gpu::note_host(job);
        }
        let values = unsafe { std::slice::from_raw_parts_mut(self.at(), self.len) };
        unsafe { *self.device.get() = None };
        self.forget();
        values
    }
    /// Where the values lie on the card, for reading, on the worker thread.
    pub fn device(&self) -> At {
        let (memory, device) = unsafe { (&*self.memory.get(), &mut *self.device.get()) };
        let fresh = device.is_none();
        let at = device.get_or_insert_with(|| Piece::take(self.bytes())).at();
        if let (true, Some(memory)) = (fresh, memory) {
            gpu::upload_to(unsafe { std::slice::from_raw_parts(memory.at(), self.bytes()) }, at);
        }
        if let Some(later) = unsafe { (*self.later.get()).take() } {
            later.fill(at).unwrap_or_else(|text| std::panic::panic_any(gpu::Failure(text)));
        }
        at
    }
    /// Leaves the values, which nobody has written, to those who read them; on the worker thread.
    pub fn put_off(&self, later: Later) {
        unsafe { *self.later.get() = Some(later) };
    }
    /// What values are made of that nobody has written, on the worker thread.
    pub fn later(&self) -> Option<&Later> {
        unsafe { &*self.later.get() }.as_ref()
    }
    /// Brings values that lie on the host alone to the card, for a later step.
    fn send(tensors: &[Tensor]) {
        let parts = tensors.iter().filter_map(|t| {
            let (memory, device) = unsafe { (&*t.memory.get(), &mut *t.device.get()) };
            let at = memory.as_ref().filter(|_| device.is_none())?.at();
            Some((device, unsafe { std::slice::from_raw_parts(at, t.bytes()) }))
        });
        let (places, parts): (Vec<_>, Vec<&[u8]>) = parts.unzip();
        for (place, piece) in places.into_iter().zip(gpu::ahead::send(&parts)) {
            *place = Some(piece);
        }
    }
    /// Where the values lie on the card, for writing, on the worker thread. Fresh memory may hold old content.
    pub fn device_mut(&self) -> At {
        let at = self.device();
        unsafe { *self.memory.get() = None };
        self.forget();
        at
    }
    /// Leaves what is known of the values just written, until they are written again; on the worker thread.
    pub fn leave(&self, stretches: Stretches) {
        unsafe { *self.stretches.get() = Some(stretches) };
    }
    /// The same of what the CPU wrote.
    pub fn leave_sums(&self, sums: Option<Sums>) {
        unsafe { *self.sums.get() = sums };
    }
    /// The sums left over samples that begin at rows `starts`.
    pub fn sums(&self, starts: &[usize]) -> Option<&[f64]> {
        let sums = unsafe { &*self.sums.get() };
        sums.as_ref().filter(|sums| sums.starts == starts).map(|sums| &sums.values[..])
    }
    fn forget(&self) {
        self.take_stretches();
        self.leave_sums(None);
    }
    /// Takes what was left.
    pub fn take_stretches(&self) -> Option<Stretches> {
        unsafe { (*self.stretches.get()).take() }
    }
    /// Brings the values of several tensors to the host, on the worker thread: one wait for all.
    fn fetch(tensors: &[Tensor]) {
        let parts = tensors.iter().filter_map(|t| {
            let (memory, device) = unsafe { (&mut *t.memory.get(), &*t.device.get()) };
            let device = device.as_ref().filter(|_| memory.is_none())?.at().0;
            let at = memory.insert(Memory::take(t.bytes())).at();
            Some((device, unsafe { std::slice::from_raw_parts_mut(at, t.bytes()) }))
        });
        let mut parts: Vec<_> = parts.collect();
        if !parts.is_empty() {
            gpu::download(&mut parts);
        }
    }
    /// The values of an f32 tensor.
    pub fn values(&self) -> &[f32] {
        self.of()
    }
    /// The values of an f32 tensor for writing.
    #[allow(clippy::mut_from_ref)]
    pub fn values_mut(&self) -> &mut [f32] {
        self.of_mut()
    }
}

/// Objects by handle: slot in the low 20 bits, generation above, so that a stale handle is an error.
pub struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T: Clone> Slots<T> {
    pub const fn new() -> Self {
        Slots { slots: Vec::new(), free: Vec::new() }
    }
    pub fn insert(&mut self, value: T) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((1, None));
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.1 = Some(value);
        slot | entry.0 << 20
    }
    pub fn get(&self, handle: u32) -> Result<T> {
        let entry = self.slots.get((handle & 0xfffff) as usize).filter(|e| e.0 == handle >> 20);
        entry
            .and_then(|e| e.1.clone())
            .ok_or_else(|| format!("handle {handle:#x} is not alive: it was freed or never made"))
    }
    pub fn remove(&mut self, handle: u32) -> Result<T> {
        let value = self.get(handle)?;
        let slot = handle & 0xfffff;
        let entry = &mut self.slots[slot as usize];
        *entry = (entry.0 % 4095 + 1, None);
        self.free.push(slot);
        Ok(value)
    }
    pub fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl<T: Clone> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

static TENSORS: Mutex<Slots<Tensor>> = Mutex::new(Slots::new());

/// The tensor behind a handle, checked to hold `len` values of either type.
pub fn either(handle: u32, len: usize, what: &str) -> Result<Tensor> {
    let tensor = any(handle)?;
    if tensor.len != len {
        return Err(format!("{what} holds {} values, its shape needs {len}", tensor.len));
    }
    Ok(tensor)
}

/// The tensor behind a handle, checked to hold `len` values of `dtype`.
pub fn get_as(handle: u32, len: usize, what: &str, dtype: Dtype) -> Result<Tensor> {
    let tensor = either(handle, len, what)?;
    if tensor.dtype != dtype {
        return Err(format!("{what} is {}, this operation takes {} here; cast it", tensor.dtype.name(), dtype.name()));
    }
    Ok(tensor)
}

/// The tensor behind a handle, checked to hold `len` values of f32.
pub fn get(handle: u32, len: usize, what: &str) -> Result<Tensor> {
    get_as(handle, len, what, Dtype::F32)
}

/// The tensor behind a handle, of any length and type.
pub fn any(handle: u32) -> Result<Tensor> {
    TENSORS.lock().unwrap().get(handle)
}

/// Makes an f32 tensor of `len` values and returns it with its handle. Its first writer must write every value.
pub fn make(len: usize) -> (Tensor, f64) {
    make_as(len, Dtype::F32)
}

/// As `make`, of any type.
pub fn make_as(len: usize, dtype: Dtype) -> (Tensor, f64) {
    let tensor = Buffer::with_len(len, dtype);
    let handle = TENSORS.lock().unwrap().insert(tensor.clone());
    (tensor, handle as f64)
}

/// Makes an f32 tensor of `len` values that are the product of `factors`, and returns its handle.
pub fn make_later(len: usize, factors: Factors) -> f64 {
    let tensor = Buffer { factors: UnsafeCell::new(Some(factors)), ..Buffer::empty(len, Dtype::F32) };
    TENSORS.lock().unwrap().insert(Arc::new(tensor)) as f64
}

/// Writes f32 values into a tensor of either type; where a GPU is in use, straight to the card.
fn store(tensor: &Buffer, values: &[f32]) {
    if gpu::active() {
        return match tensor.dtype {
            Dtype::F32 => gpu::write(values, tensor.device_mut()),
            Dtype::Bf16 => {
                let mut rounded = Scratch::<half::bf16>::new(values.len());
                rows::each(&mut rounded[..], |at, out| convert(&values[at..], out));
                gpu::write(&rounded, tensor.device_mut());
            }
        };
    }
    by_dtype!(tensor.dtype, E => rows::each(tensor.of_mut::<E>(), |at, out| convert(&values[at..], out)));
}

/// The values of `from` in the type of `to`, on the card.
fn cast(from: &Buffer, to: &Buffer) -> Result<()> {
    let (n, out) = (from.len, to.device_mut());
    match (from.dtype, to.dtype) {
        (Dtype::F32, Dtype::Bf16) => launch!("convert_to_bf16", gpu::over(n), 256, 0, from.device(), n as i64, out),
        (Dtype::Bf16, Dtype::F32) => launch!("convert_to_f32", gpu::over(n), 256, 0, from.device(), n as i64, out),
        _ => gpu::copy(from.device(), out, from.bytes()),
    }
}

exports! {
    /// A new tensor of `len` values, all `value`. dtype: 0 f32, 1 bf16.
    fn vx_tensor_full(len: u32, value: f32, dtype: u32) {
        let (tensor, handle) = make_as(len as usize, Dtype::parse(dtype)?);
        queue::enqueue(move || {
            if gpu::active() {
                let n = tensor.len;
                return launch!(gpu::typed("fill", tensor.dtype), gpu::over(n), 256, 0, value, n as i64, tensor.device_mut());
            }
            by_dtype!(tensor.dtype, E => tensor.of_mut::<E>().fill(E::from_f32(value)));
            Ok(())
        });
        Ok(handle)
    }
    /// A new tensor with a copy of `values`.
    fn vx_tensor_from(values: slice[f32], dtype: u32) {
        let (tensor, handle) = make_as(values.len(), Dtype::parse(dtype)?);
        if !memory::planning() {
            // No job knows it yet, so none needs a copy of the values.
            by_dtype!(tensor.dtype, E => convert(values, tensor.of_mut::<E>()));
        }
        Ok(handle)
    }
    /// Overwrites a tensor's values.
    fn vx_tensor_write(tensor: u32, values: slice[f32]) {
        let tensor = either(tensor, values.len(), "tensor")?;
        let values = values.to_vec();
        queue::enqueue(move || { store(&tensor, &values); Ok(()) });
        Ok(0.0)
    }
    /// Brings the values of tensors to the host with one wait of the GPU, so that reading them waits no more (enqueued).
    fn vx_tensors_fetch(tensors: slice[u32]) {
        let tensors = tensors.iter().map(|&t| any(t)).collect::<Result<Vec<_>>>()?;
        queue::enqueue(move || { Buffer::fetch(&tensors); Ok(()) });
        Ok(0.0)
    }
    /// Brings the values of tensors to the card, where one is in use, behind the work so far (enqueued).
    fn vx_tensors_send(tensors: slice[u32]) {
        let tensors = tensors.iter().map(|&t| any(t)).collect::<Result<Vec<_>>>()?;
        queue::enqueue(move || {
            if gpu::active() {
                Buffer::send(&tensors);
            }
            Ok(())
        });
        Ok(0.0)
    }
    /// Waits, then copies a tensor's values out.
    fn vx_tensor_read(tensor: u32, values: slice_mut[f32]) {
        let tensor = either(tensor, values.len(), "tensor")?;
        let same = tensor.clone();
        queue::enqueue(move || { by_dtype!(same.dtype, E => { same.of::<E>(); }); Ok(()) });
        queue::wait()?;
        by_dtype!(tensor.dtype, E => convert(tensor.of::<E>(), values));
        Ok(0.0)
    }
    /// A new tensor of type `dtype` with the values of `source`, rounded to nearest even.
    fn vx_tensor_cast(source: u32, dtype: u32) {
        let source = any(source)?;
        let (tensor, handle) = make_as(source.len, Dtype::parse(dtype)?);
        queue::enqueue(move || {
            if gpu::active() {
                return cast(&source, &tensor);
            }
            by_dtype!(source.dtype, A => by_dtype!(tensor.dtype, B => {
                let source = source.of::<A>();
                rows::each(tensor.of_mut::<B>(), |at, out| convert(&source[at..], out));
            }));
            Ok(())
        });
        Ok(handle)
    }
    /// Type of a tensor: 0 f32, 1 bf16.
    fn vx_tensor_dtype(tensor: u32) { Ok(any(tensor)?.dtype as u32 as f64) }
    /// Frees a handle; the memory goes when enqueued work no longer needs it.
    fn vx_tensor_free(tensor: u32) {
        let tensor = TENSORS.lock().unwrap().remove(tensor)?;
        queue::drop_in_order(tensor);
        Ok(0.0)
    }
    /// Number of tensors alive.
    fn vx_live_tensors() { Ok(TENSORS.lock().unwrap().live() as f64) }
    /// Bytes in use by tensors and by the scratch of the op that runs, on the host and on the card.
    fn vx_live_bytes() { Ok((memory::live_bytes() + gpu::live_bytes()) as f64) }
    /// Most bytes that were in use at once: of the card where one is in use.
    fn vx_peak_bytes() {
        Ok(match (gpu::active(), memory::planning()) {
            (false, _) => memory::peak_bytes(),
            (true, false) => gpu::peak_bytes(),
            (true, true) => gpu::live_bytes() + memory::peak_bytes(),
        } as f64)
    }
    /// From now on the most bytes count anew.
    fn vx_peak_reset() { memory::reset_peak(); gpu::reset_peak(); Ok(0.0) }
}
