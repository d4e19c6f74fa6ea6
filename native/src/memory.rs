//! Memory of tensors and of scratch: 64-byte aligned, pooled by size class.
//!
//! The sizes of a training step repeat in the next, or nearly (masked batches vary), so freed memory waits in a pool of
//! eight classes per power of two and may serve a request up to a quarter smaller. Large pieces ask for huge pages:
//! the system then clears 2 MiB at a time instead of faulting on every 4 KiB.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);
static POOL: Mutex<BTreeMap<usize, Vec<Piece>>> = Mutex::new(BTreeMap::new());

const HUGE: usize = 2 << 20;

/// Memory of a class, as the system gave it.
struct Piece {
    at: *mut u8,
    class: usize,
}
unsafe impl Send for Piece {}
unsafe impl Sync for Piece {}

/// Size class: the next multiple of an eighth of the power of two below.
fn class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(64);
    bytes.max(1).next_multiple_of(step)
}

fn layout(class: usize) -> Layout {
    Layout::from_size_align(class, if class < HUGE { 64 } else { HUGE }).expect("tensor size")
}

impl Piece {
    fn fresh(class: usize) -> Piece {
        let at = unsafe { alloc(layout(class)) };
        assert!(!at.is_null(), "out of memory: {} MiB more are needed", class >> 20);
        #[cfg(target_os = "linux")]
        if class >= HUGE {
            unsafe extern "C" {
                fn madvise(at: *mut u8, bytes: usize, advice: i32) -> i32;
            }
            const MADV_HUGEPAGE: i32 = 14;
            unsafe { madvise(at, class, MADV_HUGEPAGE) }; // advice: a refusal changes nothing
        }
        Piece { at, class }
    }
}

/// `bytes` bytes, returned to the pool when dropped. Their content is whatever was there.
pub struct Memory {
    piece: Option<Piece>,
    bytes: usize,
}

impl Memory {
    pub fn take(bytes: usize) -> Memory {
        let live = LIVE_BYTES.fetch_add(bytes, Relaxed) + bytes;
        PEAK_BYTES.fetch_max(live, Relaxed);
        let class = class(bytes);
        let mut pool = POOL.lock().unwrap();
        let found = pool.range_mut(class..=class + class / 4).find_map(|(_, list)| list.pop());
        drop(pool);
        Memory { piece: Some(found.unwrap_or_else(|| Piece::fresh(class))), bytes }
    }
    pub fn at(&self) -> *mut u8 {
        self.piece.as_ref().expect("present until the drop").at
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        LIVE_BYTES.fetch_sub(self.bytes, Relaxed);
        if let Some(piece) = self.piece.take() {
            POOL.lock().unwrap().entry(piece.class).or_default().push(piece);
        }
    }
}

/// Pooled working memory of an op: `len` values of a plain number type, that the op must write before it reads.
pub struct Scratch<T> {
    memory: Memory,
    len: usize,
    kind: PhantomData<T>,
}

/// Numbers that any bytes make up.
pub trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for u32 {}
impl Plain for half::bf16 {}

impl<T: Plain> Scratch<T> {
    pub fn new(len: usize) -> Scratch<T> {
        Scratch { memory: Memory::take(len * size_of::<T>()), len, kind: PhantomData }
    }
    /// All zeros.
    pub fn zeros(len: usize) -> Scratch<T> {
        let scratch = Self::new(len);
        unsafe { std::ptr::write_bytes(scratch.memory.at(), 0, len * size_of::<T>()) };
        scratch
    }
}

impl<T: Plain> Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        unsafe { std::slice::from_raw_parts(self.memory.at() as *const T, self.len) }
    }
}

impl<T: Plain> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        unsafe { std::slice::from_raw_parts_mut(self.memory.at() as *mut T, self.len) }
    }
}

/// Gives pooled memory back to the system.
pub fn empty_pool() {
    for piece in std::mem::take(&mut *POOL.lock().unwrap()).into_values().flatten() {
        unsafe { dealloc(piece.at, layout(piece.class)) };
    }
}

pub fn live_bytes() -> usize {
    LIVE_BYTES.load(Relaxed)
}

pub fn peak_bytes() -> usize {
    PEAK_BYTES.load(Relaxed)
}

/// From now on the most bytes count anew.
pub fn reset_peak() {
    PEAK_BYTES.store(LIVE_BYTES.load(Relaxed), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_an_eighth_at_most() {
        for bytes in [0, 1, 64, 65, 1000, 4097, (1 << 20) + 1, 100_000_000] {
            let class = class(bytes);
            assert!(class >= bytes && class <= bytes + (bytes / 8).max(64), "{bytes} {class}");
        }
    }
}
