//! Memory of tensors and of scratch: 64-byte aligned, pooled by size class.
//!
//! The sizes of a training step repeat in the next, or nearly (masked batches vary), so freed memory waits in a pool of
//! sixteen classes per power of two and may serve a request up to a quarter smaller. Large pieces ask for huge pages:
//! the system then clears 2 MiB at a time instead of faulting on every 4 KiB. What waits in the pool is bounded by what was
//! in use at once: a piece that does not fit makes others go. The crate's own tests take each size as it is and give it back at
//! once, so that a memory checker sees every access beyond it.

use crate::gpu;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);
static PLANNING: AtomicBool = AtomicBool::new(false);
static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), held: 0, used: 0, most: 0 });

const HUGE: usize = 2 << 20;
/// Bytes of free pieces that are kept in any case: the sizes of a small step do not fit each other, and clearing new memory
/// takes longer than an op (`resenc-l` at 96^3, 1.4 GiB in use: 0.3 s of a step of 1 s).
const ROOM: usize = 1 << 30;
const GIB: f64 = (1u64 << 30) as f64;

/// Freed pieces by class, and the bytes of all pieces: of the system, in use, most in use so far.
struct Pool {
    free: BTreeMap<usize, Vec<Piece>>,
    held: usize,
    used: usize,
    most: usize,
}

impl Pool {
    /// A piece of `class` or a little more. Free pieces of other sizes, the largest first, go back to the system where a new
    /// one would else make the process larger than an eighth, or `ROOM`, above what was ever in use.
    fn take(&mut self, class: usize) -> Piece {
        let found = self.free.range_mut(class..=class + class / 4).find_map(|(_, list)| list.pop());
        let piece = found.unwrap_or_else(|| {
            let most = self.most.max(self.used + class);
            while self.held + class > most + (most / 8).max(ROOM) {
                let Some(piece) = self.free.values_mut().rev().find_map(Vec::pop) else { break };
                self.held -= piece.class;
                piece.give_back();
            }
            let piece = Piece::fresh(class, self.held + class);
            self.held += class;
            piece
        });
        self.used += piece.class;
        self.most = self.most.max(self.used);
        piece
    }
}

/// The pool; an allocation that failed has left it whole.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of a class, as the system gave it.
struct Piece {
    at: *mut u8,
    class: usize,
}
unsafe impl Send for Piece {}
unsafe impl Sync for Piece {}

/// Size class: the next multiple of a sixteenth of the power of two below.
pub fn class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 32).max(64);
    bytes.max(1).next_multiple_of(step)
}

fn layout(class: usize) -> Layout {
    Layout::from_size_align(class, if class < HUGE { 64 } else { HUGE }).expect("tensor size")
}

impl Piece {
    /// New memory; `held` are the bytes that there are with it.
    fn fresh(class: usize, held: usize) -> Piece {
        let machine = machine_bytes();
        assert!(
            held <= machine,
            "out of memory: {:.1} GiB are needed and this machine has {:.1} GiB; take a smaller --patch or --batch, --precision bf16 or --recompute",
            held as f64 / GIB,
            machine as f64 / GIB
        );
        let at = unsafe { alloc(layout(class)) };
        assert!(!at.is_null(), "out of memory: {} MiB more are needed", class >> 20);
        huge_pages(unsafe { std::slice::from_raw_parts_mut(at as *mut MaybeUninit<u8>, class) });
        Piece { at, class }
    }
    fn give_back(self) {
        unsafe { dealloc(self.at, layout(self.class)) };
    }
}

/// Asks for huge pages for values that are about to be written for the first time, where there are many.
pub fn huge_pages<T>(values: &mut [T]) {
    #[cfg(target_os = "linux")]
    if size_of_val(values) >= HUGE {
        unsafe extern "C" {
            fn madvise(at: *mut u8, bytes: usize, advice: i32) -> i32;
        }
        const MADV_HUGEPAGE: i32 = 14;
        const PAGE: usize = 4096;
        let at = values.as_mut_ptr() as *mut u8;
        let skip = at.align_offset(PAGE);
        let bytes = (size_of_val(values) - skip) / PAGE * PAGE;
        unsafe { madvise(at.add(skip), bytes, MADV_HUGEPAGE) }; // advice: a refusal changes nothing
    }
}

/// Memory of this machine, from the system call that opens no file; usize::MAX where there is none.
pub fn machine_bytes() -> usize {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn sysinfo(info: *mut u64) -> i32;
        }
        // struct sysinfo: the fifth word is totalram, the fourteenth begins with mem_unit.
        let mut info = [0u64; 16];
        if cfg!(target_pointer_width = "64") && unsafe { sysinfo(info.as_mut_ptr()) } == 0 {
            return info[4].saturating_mul(info[13] & 0xffff_ffff) as usize;
        }
    }
    usize::MAX
}

/// `bytes` bytes, returned to the pool when dropped. Their content is whatever was there.
pub struct Memory {
    piece: Option<Piece>,
    bytes: usize,
}

impl Memory {
    pub fn take(bytes: usize) -> Memory {
        let piece = Some(if cfg!(test) { Piece::fresh(bytes.max(1), 0) } else { pool().take(class(bytes)) });
        count(bytes);
        Memory { piece, bytes }
    }
    pub fn at(&self) -> *mut u8 {
        self.piece.as_ref().expect("present until the drop").at
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        LIVE_BYTES.fetch_sub(self.bytes, Relaxed);
        if let Some(piece) = self.piece.take() {
            if cfg!(test) {
                return piece.give_back();
            }
            let mut pool = pool();
            pool.used -= piece.class;
            pool.free.entry(piece.class).or_default().push(piece);
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
impl Plain for i32 {}
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
    let mut pool = pool();
    for piece in std::mem::take(&mut pool.free).into_values().flatten() {
        pool.held -= piece.class;
        piece.give_back();
    }
    pool.most = pool.used;
}

fn count(bytes: usize) {
    let live = LIVE_BYTES.fetch_add(bytes, Relaxed) + bytes;
    PEAK_BYTES.fetch_max(live, Relaxed);
}

/// Bytes that a tensor would take, counted as if it did: a step can be planned before it is made.
pub struct Planned(usize);

impl Planned {
    /// Counts `bytes`, while planning.
    pub fn new(bytes: usize) -> Option<Planned> {
        PLANNING.load(Relaxed).then(|| {
            count(bytes);
            Planned(bytes)
        })
    }
}

impl Drop for Planned {
    fn drop(&mut self) {
        LIVE_BYTES.fetch_sub(self.0, Relaxed);
    }
}

/// Whether work is dropped and its tensors are counted only.
pub fn planning() -> bool {
    PLANNING.load(Relaxed)
}

exports! {
    /// From now on work is dropped at once, and tensors count without having memory: what a step will need.
    fn vx_plan(on: bool) { PLANNING.store(on, Relaxed); Ok(0.0) }
    /// Bytes of memory that this machine (or the GPU in use) has; 0 where that is not known.
    fn vx_machine_bytes() {
        if gpu::active() {
            return Ok(gpu::card().memory as f64);
        }
        Ok(match machine_bytes() { usize::MAX => 0.0, bytes => bytes as f64 })
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
    fn classes_waste_a_sixteenth_at_most() {
        for bytes in [0, 1, 64, 65, 1000, 4097, (1 << 20) + 1, 100_000_000] {
            let class = class(bytes);
            assert!(class >= bytes && class <= bytes + (bytes / 16).max(64), "{bytes} {class}");
        }
    }
}
