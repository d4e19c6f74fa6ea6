//! What the next step needs, brought to the card by a stream of its own while the present step computes.
//!
//! Two lanes take turns, each with page-locked memory here and a place there. The stream of the steps waits for a lane where
//! it first reads from it. A lane is filled again when nobody holds what lies in it and the host has waited for all that read
//! it; so its copies wait for nothing. What finds no lane goes behind the work of the step, on its stream.

use super::arena::{self, Piece};
use super::{must, upload_to, with};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Lanes are made this much larger than what asks for them: views differ in what they read.
const HEADROOM: usize = 4;

static LANES: Mutex<[Option<Arc<Lane>>; 2]> = Mutex::new([None, None]);
/// Times that the host waited for the stream of the steps.
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// Values sent by lanes.
static SENT: AtomicU64 = AtomicU64::new(0);

pub struct Lane {
    index: usize,
    /// Page-locked memory, its place on the card, bytes of either.
    host: u64,
    place: u64,
    bytes: usize,
    /// The stream of the steps waits for what was sent last.
    joined: AtomicBool,
    /// Epoch in which the lane was read last.
    read: AtomicU64,
}

impl Lane {
    fn new(index: usize, bytes: usize) -> Option<Lane> {
        let place = arena::cut_behind(bytes)?;
        // A system that locks no more pages keeps the way behind the step.
        let Ok(host) = with(|s| s.driver.lock(bytes)) else {
            arena::give_back(place, bytes);
            return None;
        };
        // The place may be in use by work that was asked for and not done.
        must(|s| s.flush().and_then(|()| s.driver.fork()));
        Some(Lane { index, host, place, bytes, joined: AtomicBool::new(true), read: AtomicU64::new(0) })
    }
    /// Notes that work which comes now reads from the lane.
    pub fn reads(&self) {
        self.read.store(EPOCH.load(Relaxed), Relaxed);
        if !self.joined.swap(true, Relaxed) {
            must(|s| s.flush().and_then(|()| s.driver.join(self.index)));
        }
    }
    /// Nobody holds it and nothing reads it any more.
    fn idle(self: &Arc<Lane>) -> bool {
        if Arc::strong_count(self) > 1 {
            return false;
        }
        if !self.joined.load(Relaxed) {
            self.reads(); // it was sent and never used
        }
        self.read.load(Relaxed) < EPOCH.load(Relaxed)
    }
    fn release(&self) {
        let _ = with(|s| s.driver.unlock(self.host)); // a failure shows in the next call
        arena::give_back(self.place, self.bytes);
    }
}

/// A lane with room for `bytes` that is idle, for the caller alone.
fn claim(bytes: usize) -> Option<Arc<Lane>> {
    let mut lanes = LANES.lock().unwrap();
    for (index, slot) in lanes.iter_mut().enumerate() {
        if let Some(lane) = slot {
            if !lane.idle() {
                continue;
            }
            if lane.bytes >= bytes {
                return slot.clone();
            }
            lane.release();
        }
        *slot = Lane::new(index, (bytes + bytes / HEADROOM).next_multiple_of(1 << 20)).map(Arc::new);
        return slot.clone();
    }
    None
}

/// Brings values to the card for a later step, on the worker thread.
pub fn send(parts: &[&[u8]]) -> Vec<Piece> {
    let bytes = parts.iter().map(|part| arena::rounded(part.len())).sum();
    let Some(lane) = (if bytes > 0 { claim(bytes) } else { None }) else {
        return parts.iter().map(|part| behind(part)).collect();
    };
    SENT.fetch_add(parts.len() as u64, Relaxed);
    let mut at = 0;
    let mut piece = |part: &&[u8]| {
        let (staged, to) = (lane.host + at, lane.place + at);
        at += arena::rounded(part.len()) as u64;
        unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), staged as *mut u8, part.len()) };
        must(|s| s.driver.send_beside(staged, part.len(), to));
        Piece::within(lane.clone(), to, part.len())
    };
    let pieces = parts.iter().map(&mut piece).collect();
    must(|s| s.driver.sent(lane.index));
    lane.joined.store(false, Relaxed);
    pieces
}

fn behind(part: &[u8]) -> Piece {
    let piece = Piece::behind(part.len());
    upload_to(part, piece.at());
    piece
}

/// The host has waited for the stream of the steps.
pub(super) fn waited() {
    EPOCH.fetch_add(1, Relaxed);
}

/// Gives the memory of lanes back that nobody holds; waits.
pub(super) fn forget() {
    for slot in LANES.lock().unwrap().iter_mut() {
        let Some(lane) = slot.take_if(|lane| Arc::strong_count(lane) == 1) else { continue };
        let idle = lane.idle() || with(|s| s.synchronize()).is_ok();
        if idle {
            lane.release();
        }
    }
}

/// Number of values that lanes have sent since the last call.
pub(super) fn take_sent() -> u64 {
    SENT.swap(0, Relaxed)
}
