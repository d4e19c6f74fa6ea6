//! Memory of the card: pooled by size class as on the host (`memory`), so that after the first steps nothing is allocated.

use super::{At, Failure, must, with};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Free addresses by class.
static POOL: Mutex<BTreeMap<usize, Vec<u64>>> = Mutex::new(BTreeMap::new());

/// Some memory of the card; it goes back to the pool when dropped.
pub struct Piece {
    at: u64,
    class: usize,
    bytes: usize,
}

impl Piece {
    /// On the worker thread. Fails when the card has no more memory, after everything pooled is given back.
    pub fn take(bytes: usize) -> Piece {
        let class = crate::memory::class(bytes);
        let (found, at) = {
            let mut pool = POOL.lock().unwrap();
            let entry = pool.range_mut(class..=class + class / 4).find(|(_, list)| !list.is_empty());
            entry.map_or((class, None), |(&class, list)| (class, list.pop()))
        };
        let at = at.unwrap_or_else(|| fresh(class));
        let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
        PEAK.fetch_max(live, Relaxed);
        Piece { at, class: found, bytes }
    }
    pub fn at(&self) -> At {
        At(self.at)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        LIVE.fetch_sub(self.bytes, Relaxed);
        POOL.lock().unwrap_or_else(|e| e.into_inner()).entry(self.class).or_default().push(self.at);
    }
}

fn fresh(class: usize) -> u64 {
    let mut at = must(|d| d.allocate(class));
    if at.is_none() {
        empty_pool();
        at = must(|d| d.allocate(class));
    }
    let Some(at) = at else {
        std::panic::panic_any(Failure(format!(
            "the memory of the GPU is used up: {} MiB are in use and {} MiB more are needed; use a smaller --batch or \
             --patch, or --recompute",
            LIVE.load(Relaxed) >> 20,
            (class >> 20).max(1)
        )))
    };
    HELD.fetch_add(class, Relaxed);
    ALLOCATIONS.fetch_add(1, Relaxed);
    at
}

/// Gives pooled memory back to the card; on the worker thread.
pub fn empty_pool() {
    let pool = std::mem::take(&mut *POOL.lock().unwrap());
    for (class, list) in pool {
        HELD.fetch_sub(class * list.len(), Relaxed);
        let _ = with(|d| {
            d.synchronize()?;
            list.iter().for_each(|&at| d.free(at));
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

/// Bytes that the card has given us, in use or pooled.
pub(super) fn held_bytes() -> usize {
    HELD.load(Relaxed)
}

/// Number of allocations since the last call.
pub(super) fn take_allocations() -> u64 {
    ALLOCATIONS.swap(0, Relaxed)
}
