//! One worker thread runs all tensor work in the order of the calls. A call from TypeScript checks its arguments,
//! enqueues and returns; `vx_queue_wait` (nonblocking for Deno) waits for everything enqueued so far.

use crate::abi::{Result, panic_text};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

type Job = Box<dyn FnOnce() + Send>;

static WORKER: OnceLock<Sender<Job>> = OnceLock::new();
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

fn worker() -> &'static Sender<Job> {
    WORKER.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        std::thread::Builder::new()
            .name("voxalign".into())
            .stack_size(16 << 20)
            .spawn(move || {
                for job in receiver {
                    job();
                }
            })
            .expect("the worker thread starts");
        sender
    })
}

/// Enqueues tensor work. After a failure, later work is dropped until the failure is reported by a wait.
pub fn enqueue(job: impl FnOnce() -> Result<()> + Send + 'static) {
    let run = move || {
        if FAILURE.lock().unwrap().is_some() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|cause| Err(panic_text(cause)));
        if let Err(text) = outcome {
            *FAILURE.lock().unwrap() = Some(text);
        }
    };
    worker().send(Box::new(run)).expect("the worker thread lives");
}

/// Waits until everything enqueued so far is done; the first failure among it is the result.
pub fn wait() -> Result<()> {
    let (sender, receiver) = channel();
    worker().send(Box::new(move || sender.send(()).unwrap_or(()))).expect("the worker thread lives");
    receiver.recv().map_err(|_| "the worker thread ended".to_string())?;
    FAILURE.lock().unwrap().take().map_or(Ok(()), Err)
}

exports! {
    /// Waits for all enqueued work. Nonblocking for Deno: the one wait of a training step.
    fn vx_queue_wait() { wait().map(|()| 0.0) }
    /// Waits for all enqueued work on the calling thread (for tests and short programs).
    fn vx_queue_sync() { wait().map(|()| 0.0) }
    /// Fixes the number of CPU threads; must come before the first op. 0: all cores.
    fn vx_threads(count: u32) {
        rayon::ThreadPoolBuilder::new().num_threads(count as usize).build_global().map_err(|e| e.to_string())?;
        Ok(0.0)
    }
}
