//! Work of the card as CUDA graphs. What is asked of the driver between two waits is cut into chunks; a chunk that has come
//! before, equal to the byte, is one launch of a graph. Anything that differs (a learning rate, other masks) is launched as
//! ever, so the results are the same bits, and shapes that come again are found by themselves.

use super::{Arg, Driver, Product};
use crate::abi::Result;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::ffi::c_void;
use std::hash::{Hash, Hasher};

/// Pieces of work of a graph: many enough to save launches, few enough for the card to begin early.
const CHUNK: usize = 128;
/// Chunks that are remembered; with more, all are forgotten.
const MOST: usize = 2048;

/// One thing that the card does, with copies of its arguments.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Work {
    Launch { kernel: String, grid: [u32; 3], threads: u32, shared: u32, args: Args },
    Send { staged: u64, bytes: usize, to: u64 },
    Copy { from: u64, to: u64, bytes: usize },
    Clear { at: u64, bytes: usize },
    Product(Product),
}

/// Arguments by value: words, and for each argument its first word and its bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Args {
    words: Vec<u64>,
    places: Vec<(usize, usize)>,
}

impl Args {
    pub fn copied(args: &[Arg]) -> Args {
        let mut copied = Args { words: Vec::new(), places: Vec::new() };
        for arg in args {
            let first = copied.words.len();
            copied.places.push((first, arg.bytes));
            copied.words.resize(first + arg.bytes.div_ceil(8), 0);
            let to = copied.words[first..].as_mut_ptr() as *mut u8;
            unsafe { std::ptr::copy_nonoverlapping(arg.at as *const u8, to, arg.bytes) };
        }
        copied
    }
    fn list(&self) -> Vec<Arg> {
        let arg = |&(first, bytes): &(usize, usize)| Arg { at: self.words[first..].as_ptr() as *mut c_void, bytes };
        self.places.iter().map(arg).collect()
    }
}

impl Work {
    pub fn run(&self, driver: &mut dyn Driver) -> Result<()> {
        match self {
            Work::Launch { kernel, grid, threads, shared, args } => {
                driver.launch(kernel, *grid, *threads, *shared, &args.list())
            }
            &Work::Send { staged, bytes, to } => driver.send(staged, bytes, to),
            &Work::Copy { from, to, bytes } => driver.copy(from, to, bytes),
            &Work::Clear { at, bytes } => driver.clear(at, bytes),
            Work::Product(product) => driver.product(product),
        }
    }
}

/// A chunk that was seen, and its graph once it has come again.
struct Seen {
    work: Vec<Work>,
    graph: Option<usize>,
}

/// What the driver is asked for, run at once or in chunks.
#[derive(Default)]
pub struct Graphs {
    /// Work is gathered and compared; else done at once.
    pub on: bool,
    pending: Vec<Work>,
    seen: HashMap<u64, Seen>,
    /// Graphs that were launched.
    pub replayed: u64,
}

impl Graphs {
    /// Turns graphs on or off.
    pub fn turn(&mut self, on: bool, driver: &mut dyn Driver) -> Result<()> {
        self.flush(driver)?;
        self.on = on;
        self.forget(driver)
    }
    fn forget(&mut self, driver: &mut dyn Driver) -> Result<()> {
        if self.seen.values().any(|seen| seen.graph.is_some()) {
            driver.synchronize()?;
            driver.forget();
        }
        self.seen.clear();
        Ok(())
    }
    pub fn take(&mut self, work: Work, driver: &mut dyn Driver) -> Result<()> {
        if !self.on {
            return work.run(driver);
        }
        self.pending.push(work);
        if self.pending.len() < CHUNK { Ok(()) } else { self.flush(driver) }
    }
    /// Hands everything pending to the card.
    pub fn flush(&mut self, driver: &mut dyn Driver) -> Result<()> {
        let work = std::mem::take(&mut self.pending);
        if work.is_empty() {
            return Ok(());
        }
        let mut hasher = DefaultHasher::new();
        work.hash(&mut hasher);
        let key = hasher.finish();
        let Some(seen) = self.seen.get_mut(&key).filter(|seen| seen.work == work) else {
            work.iter().try_for_each(|w| w.run(driver))?;
            if self.seen.len() >= MOST {
                self.forget(driver)?;
            }
            self.seen.insert(key, Seen { work, graph: None });
            return Ok(());
        };
        let graph = match seen.graph {
            Some(graph) => graph,
            None => {
                driver.capture()?;
                let asked = work.iter().try_for_each(|w| w.run(driver));
                let graph = driver.captured();
                asked?;
                *seen.graph.insert(graph?)
            }
        };
        self.replayed += 1;
        driver.replay(graph)
    }
}
