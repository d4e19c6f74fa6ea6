//! Memory of tensors and of scratch.
//!
//! Large pieces are cut from slabs of address space (`places`): memory becomes the process's own where it is first written, so
//! that it holds little more than the most that was in use at once, and the system clears no page twice. Slabs ask
//! for huge pages: it then clears 2 MiB at a time instead of faulting on every 4 KiB. Small pieces wait in classes, sixteen per
//! power of two. The crate's own tests take each size as it is and give it back at once, so that a memory checker sees every
//! access beyond it.

use crate::places::Places;
use crate::{gpu, queue};
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);
static PLANNING: AtomicBool = AtomicBool::new(false);
static POOL: Mutex<Pool> = Mutex::new(Pool { small: BTreeMap::new(), large: Places::new(), used: 0 });

const HUGE: usize = 2 << 20;
/// Pieces of this size and more are cut from slabs, at multiples of `ALIGN`.
const LARGE: usize = 256 << 10;
const ALIGN: usize = 4096;
const GIB: f64 = (1u64 << 30) as f64;

/// Freed pieces by class, slabs, and the bytes of all pieces in use.
struct Pool {
    small: BTreeMap<usize, Vec<Piece>>,
    large: Places,
    used: usize,
}

impl Pool {
    fn take(&mut self, bytes: usize) -> Piece {
        let size = if class(bytes) < LARGE { class(bytes) } else { bytes.next_multiple_of(ALIGN).max(LARGE) };
        let mut machine = machine_bytes();
        if self.used + size > machine {
            machine = ask_machine(); // some grow as they are used
        }
        assert!(
            self.used + size <= machine || gpu::active(),
            "out of memory: {:.1} GiB are needed and this machine has {:.1} GiB; take a smaller --patch or --batch, --precision bf16 or --recompute",
            (self.used + size) as f64 / GIB,
            machine as f64 / GIB
        );
        let piece = if size < LARGE {
            let found = self.small.range_mut(size..=size + size / 4).find_map(|(_, list)| list.pop());
            found.unwrap_or_else(|| Piece::fresh(size))
        } else {
            let at = self.large.take(size).unwrap_or_else(|| {
                self.grow(size, machine);
                self.large.take(size).expect("the new slab holds it")
            });
            Piece { at: at as *mut u8, size }
        };
        self.used += piece.size;
        piece
    }
    fn give(&mut self, piece: Piece) {
        self.used -= piece.size;
        match piece.size {
            LARGE.. => self.large.give(piece.at as u64, piece.size),
            size => self.small.entry(size).or_default().push(piece),
        }
    }
    /// A slab that holds `size`: a quarter of the machine's memory, or as much of that as the system lends. Where a slab
    /// costs memory before it is written, no more than 1 GiB.
    fn grow(&mut self, size: usize, machine: usize) {
        let lazy = cfg!(any(target_os = "linux", target_os = "macos")) && machine != usize::MAX;
        let mut slab = size.max(if lazy { machine / 4 } else { 1 << 30 }).next_multiple_of(HUGE);
        let at = loop {
            let at = unsafe { alloc(layout(slab)) };
            if !at.is_null() || slab <= size {
                break at;
            }
            slab = size.max(slab / 2).next_multiple_of(ALIGN);
        };
        assert!(!at.is_null(), "out of memory: {} MiB more are needed", size >> 20);
        huge_pages(unsafe { std::slice::from_raw_parts_mut(at as *mut MaybeUninit<u8>, slab) });
        self.large.add(at as u64, slab);
    }
}

/// The pool; an allocation that failed has left it whole.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of the process.
struct Piece {
    at: *mut u8,
    size: usize,
}
unsafe impl Send for Piece {}
unsafe impl Sync for Piece {}

/// Size class: the next multiple of a sixteenth of the power of two below.
pub fn class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 32).max(64);
    bytes.max(1).next_multiple_of(step)
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, if size < HUGE { 64 } else { HUGE }).expect("tensor size")
}

impl Piece {
    /// From the system.
    fn fresh(size: usize) -> Piece {
        let at = unsafe { alloc(layout(size)) };
        assert!(!at.is_null(), "out of memory: {} bytes more are needed", size);
        Piece { at, size }
    }
    fn give_back(self) {
        unsafe { dealloc(self.at, layout(self.size)) };
    }
}

/// Asks for huge pages for values that are about to be written for the first time, where there are many.
pub fn huge_pages<T>(values: &mut [T]) {
    #[cfg(target_os = "linux")]
    if size_of_val(values) >= HUGE {
        advise(values.as_mut_ptr() as usize, size_of_val(values), 14); // MADV_HUGEPAGE
    }
}

/// Advice on whole pages; a refusal changes nothing.
#[cfg(target_os = "linux")]
fn advise(at: usize, bytes: usize, advice: i32) {
    unsafe extern "C" {
        fn madvise(at: *mut u8, bytes: usize, advice: i32) -> i32;
    }
    const PAGE: usize = 4096;
    let first = at.next_multiple_of(PAGE);
    let pages = (at + bytes).saturating_sub(first) / PAGE * PAGE;
    unsafe { madvise(first as *mut u8, pages, advice) };
}

/// Memory of this machine, from the system call that opens no file; usize::MAX where there is none.
pub fn machine_bytes() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(ask_machine);
    *BYTES
}

fn ask_machine() -> usize {
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

/// `bytes` bytes at a multiple of 64, returned to the pool when dropped. Their content is whatever was there.
pub struct Memory {
    piece: Option<Piece>,
    bytes: usize,
}

impl Memory {
    pub fn take(bytes: usize) -> Memory {
        let piece = Some(if cfg!(test) { Piece::fresh(bytes.max(1)) } else { pool().take(bytes) });
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
            pool().give(piece);
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
impl Plain for f64 {}
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

/// Gives free memory back to the system: small pieces, slabs of which nothing is in use, and what is free of the others.
pub fn empty_pool() {
    let mut pool = pool();
    std::mem::take(&mut pool.small).into_values().flatten().for_each(Piece::give_back);
    for (at, slab) in pool.large.unused() {
        unsafe { dealloc(at as *mut u8, layout(slab)) };
    }
    pool.large.free.iter().for_each(|(&at, &bytes)| forget(at as usize, bytes));
}

/// Lets the system take back the pages of a place; they read as zero when next written to.
fn forget(at: usize, bytes: usize) {
    #[cfg(target_os = "linux")]
    advise(at, bytes, 4); // MADV_DONTNEED
    #[cfg(not(target_os = "linux"))]
    let _ = (at, bytes);
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
    /// Gives pooled memory back to the system and to the card.
    fn vx_pool_empty() {
        empty_pool();
        queue::enqueue(|| { gpu::empty(); Ok(()) });
        Ok(0.0)
    }
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

    #[test]
    fn freed_places_serve_again_and_free_slabs_go_back() {
        let mut pool = Pool { small: BTreeMap::new(), large: Places::new(), used: 0 };
        let sizes = [LARGE - 1, LARGE, 5 * LARGE + 1, 100];
        let pieces = sizes.map(|bytes| pool.take(bytes));
        assert!(pieces.iter().zip(sizes).all(|(p, bytes)| p.size >= bytes && p.at as usize % 64 == 0));
        for p in &pieces {
            unsafe { p.at.write_bytes(1, p.size) };
        }
        let [first, second, third, small] = pieces;
        let at = second.at;
        pool.give(second);
        pool.give(small);
        let again = pool.take(LARGE);
        assert_eq!(again.at, at);
        let small = pool.take(90); // a freed piece that is a little larger
        assert_eq!(pool.small.values().map(Vec::len).sum::<usize>(), 0);
        pool.give(small);
        pool.give(third);
        assert!(pool.large.unused().is_empty());
        pool.give(again);
        pool.give(first);
        assert_eq!((pool.used, pool.large.unused().len()), (0, 1));
        pool.small.into_values().flatten().for_each(Piece::give_back);
    }
}
