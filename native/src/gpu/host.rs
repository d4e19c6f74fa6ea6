//! The emulated card: kernels run on the host through `native/shim`, compiled in by build.rs under the feature `shim`.

use super::failure::{refused, sentence};
use super::graphs::{Args, Work};
use super::{Arg, Card, Driver, Pretended, Product};
use crate::abi::Result;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Mutex;
use std::time::Instant;

unsafe extern "C" {
    /// Runs a kernel to its end; null, or what is wrong with the launch.
    fn vx_shim_launch(
        kernel: *const c_char,
        grid: *const u32,
        threads: u32,
        shared: u32,
        args: *const *mut c_void,
        sizes: *const usize,
        count: usize,
    ) -> *const c_char;
}

/// Bytes that uploads go through between two waits.
const STAGING: usize = 64 << 20;

struct Host {
    pieces: HashMap<u64, usize>,
    locked: HashMap<u64, usize>,
    marks: [Instant; 2],
    is: Pretended,
    staging: Vec<u8>,
    staged: usize,
    /// What the second stream has not done: it does nothing before it is waited for.
    beside: Vec<Beside>,
    /// What is being captured, and what was.
    capturing: Option<Vec<Work>>,
    graphs: Vec<Vec<Work>>,
}

/// Work of the second stream.
enum Beside {
    Send { locked: u64, bytes: usize, to: u64 },
    Mark(usize),
}

impl Host {
    /// Waits between streams are no part of a graph.
    fn uncaptured(&self) -> Result<()> {
        if self.capturing.is_some() { Err("a wait for another stream is captured".into()) } else { Ok(()) }
    }
    /// True: it becomes part of the graph that is captured, and is not done now.
    fn captures(&mut self, work: impl FnOnce() -> Work) -> bool {
        self.capturing.as_mut().map(|list| list.push(work())).is_some()
    }
}

static PRETENDED: Mutex<Pretended> =
    Mutex::new(Pretended { memory: 1 << 34, taken: 0, version: 12040, launches: 0, code: 0 });

/// What the card is when it is opened next.
pub fn pretend(card: Pretended) -> Result<()> {
    *PRETENDED.lock().unwrap() = card;
    Ok(())
}

/// Opens the emulated card.
pub fn open() -> Result<Box<dyn Driver>> {
    let is = *PRETENDED.lock().unwrap();
    refused("emulated card", 90, is.version as i32).map_or(Ok(()), Err)?;
    Ok(Box::new(Host {
        pieces: HashMap::new(),
        locked: HashMap::new(),
        marks: [Instant::now(); 2],
        is,
        staging: Vec::with_capacity(STAGING),
        staged: 0,
        beside: Vec::new(),
        capturing: None,
        graphs: Vec::new(),
    }))
}

/// The emulated card needs no compiler.
pub mod kernels {
    use crate::abi::Result;
    const NONE: &str = "the emulated card has its kernels compiled in";
    /// The emulated card has one text.
    pub fn text_hash() -> u64 {
        1
    }
    pub fn name(_: u32) -> Result<String> {
        Err(NONE.into())
    }
    pub fn compile(_: u32) -> Result<Vec<u8>> {
        Err(NONE.into())
    }
    pub fn give(_: u32, _: &[u8]) -> Result<bool> {
        Err(NONE.into())
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), 256).expect("size")
}

impl Driver for Host {
    fn card(&self) -> Card {
        Card { name: "emulated card".into(), memory: self.is.memory, hopper: true, compile: 0 }
    }
    fn allocate(&mut self, bytes: usize) -> Result<Option<u64>> {
        if bytes as u64 > self.available()? {
            return Ok(None);
        }
        let at = unsafe { alloc(layout(bytes)) };
        if at.is_null() {
            return Ok(None);
        }
        unsafe { std::ptr::write_bytes(at, 0xff, bytes) }; // NaN: what is read before it is written shows
        self.pieces.insert(at as u64, bytes);
        Ok(Some(at as u64))
    }
    fn free(&mut self, at: u64) {
        let bytes = self.pieces.remove(&at).expect("an address of ours");
        unsafe { dealloc(at as *mut u8, layout(bytes)) };
    }
    fn available(&mut self) -> Result<u64> {
        let ours: usize = self.pieces.values().sum();
        Ok(self.is.memory.saturating_sub(self.is.taken + ours as u64))
    }
    fn stage(&mut self, from: &[u8]) -> Result<Option<u64>> {
        if self.staged + from.len() > STAGING {
            return Ok(None);
        }
        let at = unsafe { self.staging.as_mut_ptr().add(self.staged) };
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), at, from.len()) };
        self.staged += from.len().next_multiple_of(256);
        Ok(Some(at as u64))
    }
    fn send(&mut self, staged: u64, bytes: usize, to: u64) -> Result<()> {
        if !self.captures(|| Work::Send { staged, bytes, to }) {
            unsafe { std::ptr::copy_nonoverlapping(staged as *const u8, to as *mut u8, bytes) };
        }
        Ok(())
    }
    fn lock(&mut self, bytes: usize) -> Result<u64> {
        let at = unsafe { alloc(layout(bytes)) };
        if at.is_null() {
            Err("no memory can be locked".into())
        } else {
            self.locked.insert(at as u64, bytes);
            Ok(at as u64)
        }
    }
    fn unlock(&mut self, at: u64) -> Result<()> {
        let bytes = self.locked.remove(&at).ok_or("an address that was not locked")?;
        unsafe { dealloc(at as *mut u8, layout(bytes)) };
        Ok(())
    }
    fn send_beside(&mut self, locked: u64, bytes: usize, to: u64) -> Result<()> {
        self.beside.push(Beside::Send { locked, bytes, to });
        Ok(())
    }
    fn sent(&mut self, lane: usize) -> Result<()> {
        self.beside.push(Beside::Mark(lane));
        Ok(())
    }
    fn fork(&mut self) -> Result<()> {
        self.uncaptured()
    }
    fn join(&mut self, lane: usize) -> Result<()> {
        self.uncaptured()?;
        let last = self.beside.iter().rposition(|b| matches!(b, Beside::Mark(mark) if *mark == lane));
        if self.is.code == 1 {
            return Ok(()); // a planted bug
        }
        for work in self.beside.drain(..last.map_or(0, |last| last + 1)) {
            if let Beside::Send { locked, bytes, to } = work {
                unsafe { std::ptr::copy_nonoverlapping(locked as *const u8, to as *mut u8, bytes) };
            }
        }
        Ok(())
    }
    fn download(&mut self, parts: &mut [(u64, &mut [u8])]) -> Result<()> {
        for (from, to) in parts {
            unsafe { std::ptr::copy_nonoverlapping(*from as *const u8, to.as_mut_ptr(), to.len()) };
        }
        self.synchronize()
    }
    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if !self.captures(|| Work::Copy { from, to, bytes }) {
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        }
        Ok(())
    }
    fn clear(&mut self, at: u64, bytes: usize) -> Result<()> {
        if !self.captures(|| Work::Clear { at, bytes }) {
            unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
        }
        Ok(())
    }
    fn launch(&mut self, kernel: &str, grid: [u32; 3], threads: u32, shared: u32, args: &[Arg]) -> Result<()> {
        let copied = || Work::Launch { kernel: kernel.into(), grid, threads, shared, args: Args::copied(args) };
        if self.captures(copied) {
            return Ok(());
        }
        if self.is.code > 1 {
            if self.is.launches <= 1 {
                return Err(format!("{kernel}: {}", sentence(self.is.code)));
            }
            self.is.launches -= 1;
        }
        let name = CString::new(kernel).map_err(|e| e.to_string())?;
        let (at, sizes): (Vec<_>, Vec<_>) = args.iter().map(|a| (a.at, a.bytes)).unzip();
        let (at, sizes) = (at.as_ptr(), sizes.as_ptr());
        let wrong = unsafe { vx_shim_launch(name.as_ptr(), grid.as_ptr(), threads, shared, at, sizes, args.len()) };
        if wrong.is_null() {
            return Ok(());
        }
        Err(format!("{kernel}: {}", unsafe { CStr::from_ptr(wrong) }.to_string_lossy()))
    }
    fn synchronize(&mut self) -> Result<()> {
        self.staged = 0;
        Ok(())
    }
    fn mark(&mut self) -> Result<()> {
        self.marks = [self.marks[1], Instant::now()];
        Ok(())
    }
    fn milliseconds(&mut self) -> Result<f64> {
        Ok((self.marks[1] - self.marks[0]).as_secs_f64() * 1e3)
    }
    fn capture(&mut self) -> Result<()> {
        self.capturing = Some(Vec::new());
        Ok(())
    }
    fn captured(&mut self) -> Result<usize> {
        self.graphs.push(self.capturing.take().expect("capture came before"));
        Ok(self.graphs.len() - 1)
    }
    fn replay(&mut self, graph: usize) -> Result<()> {
        let work = std::mem::take(&mut self.graphs[graph]);
        let done = work.iter().try_for_each(|w| w.run(self));
        self.graphs[graph] = work;
        done
    }
    fn forget(&mut self) {
        self.graphs.clear();
    }
    fn multiplies(&mut self, _: &Product) -> Result<bool> {
        Ok(true)
    }
    fn product(&mut self, p: &Product) -> Result<()> {
        if self.captures(|| Work::Product(*p)) {
            return Ok(());
        }
        let value = |at: u64, i: usize| unsafe { (*(at as *const half::bf16).add(i)).to_f32() };
        let [wide_a, wide_b] = p.columns();
        for (column, row) in (0..p.n).flat_map(|column| (0..p.m).map(move |row| (column, row))) {
            let mut sum = 0.0;
            for i in 0..p.k {
                let a = if p.turned[0] { row * wide_a + i } else { i * wide_a + row };
                let b = if p.turned[1] { i * wide_b + column } else { column * wide_b + i };
                sum += value(p.a, a) * value(p.b, b);
            }
            sum += if p.bias == 0 { 0.0 } else { value(p.bias, row) };
            let at = column * p.m + row;
            match p.single {
                true => unsafe { *(p.c as *mut f32).add(at) = sum },
                false => unsafe { *(p.c as *mut half::bf16).add(at) = half::bf16::from_f32(sum) },
            }
        }
        Ok(())
    }
}
