//! Memory of the card: slabs that the driver gave, cut to size and joined again when pieces are dropped. A run reserves what
//! its plan says before the first step, so that the driver is asked for nothing inside one.

use super::ahead::{self, Lane};
use super::{At, Failure, must, with};
use crate::places::Places;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ARENA: Mutex<Places> = Mutex::new(Places::new());

/// Pieces begin at multiples of this.
const ALIGN: usize = 512;
/// Bytes that the driver is asked for at least.
const SLAB: usize = 64 << 20;

fn arena() -> std::sync::MutexGuard<'static, Places> {
    ARENA.lock().unwrap_or_else(|e| e.into_inner())
}

/// Some memory of the card; it goes back to the arena when dropped.
pub struct Piece {
    at: u64,
    bytes: usize,
    /// It lies in a lane, and is no part of the arena.
    lane: Option<Arc<Lane>>,
}

pub(super) fn rounded(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(ALIGN)
}

impl Piece {
    /// On the worker thread. Fails when the card has no more memory, after every unused slab is given back.
    pub fn take(bytes: usize) -> Piece {
        Piece::taken(bytes, Places::take)
    }
    /// The same for what a later step needs: its size changes no address of the steps before it.
    pub fn behind(bytes: usize) -> Piece {
        Piece::taken(bytes, Places::take_behind)
    }
    fn taken(bytes: usize, take: fn(&mut Places, usize) -> Option<u64>) -> Piece {
        let size = rounded(bytes);
        let taken = take(&mut arena(), size);
        let at = taken.unwrap_or_else(|| {
            grow(size);
            take(&mut arena(), size).expect("the new slab holds it")
        });
        Piece::counted(at, bytes, None)
    }
    /// `bytes` at a place in a lane.
    pub(super) fn within(lane: Arc<Lane>, at: u64, bytes: usize) -> Piece {
        Piece::counted(at, bytes, Some(lane))
    }
    fn counted(at: u64, bytes: usize, lane: Option<Arc<Lane>>) -> Piece {
        let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
        PEAK.fetch_max(live, Relaxed);
        Piece { at, bytes, lane }
    }
    /// Where it lies, for work that is asked for now; on the worker thread.
    pub fn at(&self) -> At {
        if let Some(lane) = &self.lane {
            lane.reads();
        }
        At(self.at)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        LIVE.fetch_sub(self.bytes, Relaxed);
        if self.lane.is_none() {
            arena().give(self.at, rounded(self.bytes));
        }
    }
}

/// A place for a lane, counted as free: work that was asked for may still use it. None: the card has no room.
pub(super) fn cut_behind(bytes: usize) -> Option<u64> {
    let cut = || arena().take_behind(rounded(bytes));
    cut().or_else(|| (slab(rounded(bytes).max(SLAB)) || slab(rounded(bytes))).then(cut).flatten())
}

/// Takes such a place back.
pub(super) fn give_back(at: u64, bytes: usize) {
    arena().give(at, rounded(bytes));
}

/// Asks the driver for a slab. False: the card has no such place.
fn slab(bytes: usize) -> bool {
    let Some(at) = must(|s| s.driver.allocate(bytes)) else { return false };
    ALLOCATIONS.fetch_add(1, Relaxed);
    arena().add(at, bytes);
    true
}

/// Makes room for a piece of `bytes`.
fn grow(bytes: usize) {
    if slab(bytes.max(SLAB)) || slab(bytes) {
        return;
    }
    empty();
    if !slab(bytes) {
        std::panic::panic_any(Failure(format!(
            "the memory of the GPU is used up: {} MiB are in use and {} MiB more are needed; use a smaller --batch or \
             --patch, or --recompute",
            LIVE.load(Relaxed) >> 20,
            (bytes >> 20).max(1)
        )))
    }
}

/// One slab for `bytes` that come on top of what is in use; on the worker thread. False: the card has less.
pub fn reserve(bytes: usize) -> bool {
    let bytes = rounded(bytes);
    if arena().free.values().any(|&free| free >= bytes) {
        return true;
    }
    empty();
    slab(bytes)
}

/// Gives unused slabs back to the card; on the worker thread.
pub fn empty() {
    ahead::forget();
    let unused = arena().unused();
    if !unused.is_empty() {
        let _ = with(|s| {
            s.synchronize()?;
            unused.iter().for_each(|&(at, _)| s.driver.free(at));
            Ok(())
        });
    }
}

/// Bytes in use on the card.
pub fn live_bytes() -> usize {
    LIVE.load(Relaxed)
}

/// Most bytes that were in use on the card at once.
pub fn peak_bytes() -> usize {
    PEAK.load(Relaxed)
}

/// From now on the most bytes count anew.
pub fn reset_peak() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// Bytes that the card has given us.
pub(super) fn held_bytes() -> usize {
    arena().slabs.values().sum()
}

/// Bytes of them that nobody uses.
pub(super) fn free_bytes() -> usize {
    arena().free.values().sum()
}

/// Number of allocations since the last call.
pub(super) fn take_allocations() -> u64 {
    ALLOCATIONS.swap(0, Relaxed)
}
