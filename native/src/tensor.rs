//! Tensors: f32 buffers owned here, known outside as u32 handles (slot and generation).
//!
//! A buffer has no memory until the worker first writes it, so enqueueing a whole step ahead costs none; freed
//! memory goes to a pool by size, since the sizes of a step repeat in the next.

use crate::abi::Result;
use crate::queue;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);
static POOL: Mutex<Option<HashMap<usize, Vec<Memory>>>> = Mutex::new(None);

/// 64-byte aligned f32 memory.
struct Memory {
    at: *mut f32,
    len: usize,
}
unsafe impl Send for Memory {}

fn layout(len: usize) -> Layout {
    Layout::from_size_align((len * 4).max(64), 64).expect("tensor size")
}

impl Memory {
    /// Memory of `len` values: from the pool (old content) or fresh (zeros).
    fn take(len: usize) -> Memory {
        let live = LIVE_BYTES.fetch_add(len * 4, Relaxed) + len * 4;
        PEAK_BYTES.fetch_max(live, Relaxed);
        if let Some(found) = POOL.lock().unwrap().get_or_insert_with(HashMap::new).get_mut(&len).and_then(Vec::pop) {
            return found;
        }
        let at = unsafe { alloc_zeroed(layout(len)) } as *mut f32;
        assert!(!at.is_null(), "out of memory: {} MiB more are needed", len >> 18);
        Memory { at, len }
    }
    fn give(self) {
        LIVE_BYTES.fetch_sub(self.len * 4, Relaxed);
        POOL.lock().unwrap().get_or_insert_with(HashMap::new).entry(self.len).or_default().push(self);
    }
}

fn empty_pool() {
    for memory in POOL.lock().unwrap().take().into_iter().flatten().flat_map(|(_, list)| list) {
        unsafe { dealloc(memory.at as *mut u8, layout(memory.len)) };
    }
}

/// A tensor's values. Only the worker thread touches them (or anyone, after a wait).
pub struct Buffer {
    pub len: usize,
    memory: UnsafeCell<Option<Memory>>,
}
unsafe impl Send for Buffer {}
unsafe impl Sync for Buffer {}

/// A shared tensor buffer.
pub type Tensor = Arc<Buffer>;

impl Buffer {
    pub fn with_len(len: usize) -> Tensor {
        Arc::new(Buffer { len, memory: UnsafeCell::new(None) })
    }
    fn at(&self) -> *mut f32 {
        let memory = unsafe { &mut *self.memory.get() };
        memory.get_or_insert_with(|| Memory::take(self.len)).at
    }
    /// The values, on the worker thread.
    pub fn values(&self) -> &[f32] {
        unsafe { std::slice::from_raw_parts(self.at(), self.len) }
    }
    /// The values for writing, on the worker thread. Fresh memory may hold old content.
    #[allow(clippy::mut_from_ref)]
    pub fn values_mut(&self) -> &mut [f32] {
        unsafe { std::slice::from_raw_parts_mut(self.at(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.get_mut().take() {
            memory.give();
        }
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
    pub fn remove(&mut self, handle: u32) -> Result<()> {
        self.get(handle)?;
        let slot = handle & 0xfffff;
        let entry = &mut self.slots[slot as usize];
        *entry = (entry.0 % 4095 + 1, None);
        self.free.push(slot);
        Ok(())
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

/// The tensor behind a handle, checked to hold `len` values.
pub fn get(handle: u32, len: usize, what: &str) -> Result<Tensor> {
    let tensor = TENSORS.lock().unwrap().get(handle)?;
    if tensor.len != len {
        return Err(format!("{what} holds {} values, its shape needs {len}", tensor.len));
    }
    Ok(tensor)
}

/// The tensor behind a handle, of any length.
pub fn any(handle: u32) -> Result<Tensor> {
    TENSORS.lock().unwrap().get(handle)
}

/// Makes a tensor of `len` values and returns it with its handle. Its first writer must write every value.
pub fn make(len: usize) -> (Tensor, f64) {
    let tensor = Buffer::with_len(len);
    let handle = TENSORS.lock().unwrap().insert(tensor.clone());
    (tensor, handle as f64)
}

exports! {
    /// A new tensor of `len` values, all `value`.
    fn vx_tensor_full(len: u32, value: f32) {
        let (tensor, handle) = make(len as usize);
        queue::enqueue(move || { tensor.values_mut().fill(value); Ok(()) });
        Ok(handle)
    }
    /// A new tensor with a copy of `values`.
    fn vx_tensor_from(values: slice[f32]) {
        let (tensor, handle) = make(values.len());
        let values = values.to_vec();
        queue::enqueue(move || { tensor.values_mut().copy_from_slice(&values); Ok(()) });
        Ok(handle)
    }
    /// Overwrites a tensor's values.
    fn vx_tensor_write(tensor: u32, values: slice[f32]) {
        let tensor = get(tensor, values.len(), "tensor")?;
        let values = values.to_vec();
        queue::enqueue(move || { tensor.values_mut().copy_from_slice(&values); Ok(()) });
        Ok(0.0)
    }
    /// Waits, then copies a tensor's values out.
    fn vx_tensor_read(tensor: u32, values: slice_mut[f32]) {
        let tensor = get(tensor, values.len(), "tensor")?;
        queue::wait()?;
        values.copy_from_slice(tensor.values());
        Ok(0.0)
    }
    /// Copies `source` over `target`.
    fn vx_tensor_copy(source: u32, target: u32) {
        let source = any(source)?;
        let target = get(target, source.len, "target")?;
        queue::enqueue(move || { target.values_mut().copy_from_slice(source.values()); Ok(()) });
        Ok(0.0)
    }
    /// Frees a handle; the memory goes when enqueued work no longer needs it.
    fn vx_tensor_free(tensor: u32) { TENSORS.lock().unwrap().remove(tensor).map(|()| 0.0) }
    /// Number of tensors alive.
    fn vx_live_tensors() { Ok(TENSORS.lock().unwrap().live() as f64) }
    /// Bytes in use by tensors.
    fn vx_live_bytes() { Ok(LIVE_BYTES.load(Relaxed) as f64) }
    /// Most bytes that tensors have used at once.
    fn vx_peak_bytes() { Ok(PEAK_BYTES.load(Relaxed) as f64) }
    /// Gives pooled memory back to the system.
    fn vx_pool_empty() { empty_pool(); Ok(0.0) }
}
