//! One worker thread runs all tensor work in the order of the calls. A call from TypeScript checks its arguments,
//! enqueues and returns; `vx_queue_wait` (nonblocking for Deno) waits for everything enqueued so far.

use crate::abi::{Result, panic_text};
use crate::gpu;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

type Job = Box<dyn FnOnce() + Send>;

static WORKER: OnceLock<Sender<Job>> = OnceLock::new();
static FAILURE: Mutex<Option<String>> = Mutex::new(None);
/// Work enqueued now may be dropped by `vx_queue_cancel` (forward and backward pass, not the update of the weights).
static CANCELLABLE: AtomicBool = AtomicBool::new(false);
static CANCEL: AtomicBool = AtomicBool::new(false);
/// Something was dropped since the last wait: all that follows is dropped too, so a step happens whole or not at all.
static DROPPED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Where the job that runs was enqueued.
    static JOB: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// Where the job that runs on this thread was enqueued; None off the worker thread.
pub fn job() -> Option<&'static Location<'static>> {
    JOB.get()
}

fn worker() -> &'static Sender<Job> {
    WORKER.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        std::thread::Builder::new()
            .name("voxalign".into())
            .stack_size(16 << 20)
            .spawn(move || {
                // One of the cores of its own pool: work is shared out without waking a thread and waiting for it (a step
                // of s3d on resenc-s at 64^3, two Zen 4 cores: 0.120 s, else 0.130).
                let pool =
                    rayon::ThreadPoolBuilder::new().num_threads(rayon::current_num_threads()).use_current_thread();
                let _cores = pool.build().expect("the threads of the worker start");
                for job in receiver {
                    job();
                }
            })
            .expect("the worker thread starts");
        sender
    })
}

/// Enqueues tensor work. After a failure, later work is dropped until the failure is reported by a wait.
#[track_caller]
pub fn enqueue(job: impl FnOnce() -> Result<()> + Send + 'static) {
    if crate::memory::planning() {
        return;
    }
    let place = Location::caller();
    let cancellable = CANCELLABLE.load(SeqCst);
    let run = move || {
        if cancellable && CANCEL.load(SeqCst) {
            DROPPED.store(true, SeqCst);
        }
        if DROPPED.load(SeqCst) || FAILURE.lock().unwrap().is_some() {
            return;
        }
        JOB.set(Some(place));
        let outcome = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|cause| Err(panic_text(cause)));
        JOB.set(None);
        if let Err(text) = outcome {
            *FAILURE.lock().unwrap() = Some(text);
        }
    };
    worker().send(Box::new(run)).expect("the worker thread lives");
}

/// Drops `value`; where a GPU is in use, after the work before it, so that the same steps give memory back at the same
/// places and find the same addresses.
pub fn drop_in_order(value: impl Send + 'static) {
    if gpu::active() {
        enqueue(move || {
            drop(value);
            Ok(())
        });
    }
}

/// Waits until everything enqueued so far is done; the first failure among it is the result, else whether work was
/// dropped by a cancel.
pub fn wait() -> Result<bool> {
    let (sender, receiver) = channel();
    let end = move || {
        if let Err(text) = gpu::synchronize() {
            FAILURE.lock().unwrap().get_or_insert(text);
        }
        sender.send(()).unwrap_or(())
    };
    worker().send(Box::new(end)).expect("the worker thread lives");
    receiver.recv().map_err(|_| "the worker thread ended".to_string())?;
    let dropped = DROPPED.swap(false, SeqCst);
    FAILURE.lock().unwrap().take().map_or(Ok(dropped), Err)
}

exports! {
    /// Waits for all enqueued work. Nonblocking for Deno: the one wait of a training step. 1: work was dropped.
    fn vx_queue_wait() { wait().map(|dropped| dropped as u32 as f64) }
    /// Waits for all enqueued work on the calling thread (for tests and short programs).
    fn vx_queue_sync() { wait().map(|dropped| dropped as u32 as f64) }
    /// Whether the work enqueued from now on may be dropped by a cancel.
    fn vx_queue_cancellable(yes: bool) { CANCELLABLE.store(yes, SeqCst); Ok(0.0) }
    /// Drops cancellable work that has not started, now and (until called with false) later.
    fn vx_queue_cancel(yes: bool) { CANCEL.store(yes, SeqCst); Ok(0.0) }
    /// Fixes the number of CPU threads; must come before the first op. 0: all cores.
    fn vx_threads(count: u32) {
        rayon::ThreadPoolBuilder::new().num_threads(count as usize).build_global().map_err(|e| e.to_string())?;
        Ok(0.0)
    }
}
