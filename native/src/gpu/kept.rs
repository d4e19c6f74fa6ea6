//! Kernels compiled at first use, as the caller keeps them from one run to the next.

use super::{card, kernels};
use std::sync::Mutex;

/// What NVRTC made, until it is read.
static MADE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

exports! {
    /// Compute capability (90: 9.0) for which kernels must be compiled before the GPU in use can compute. 0: for none.
    fn vx_kernels_missing() { Ok(card().compile as f64) }
    /// A number of the text of all kernels: another text has another.
    fn vx_kernels_text() { Ok(kernels::text_hash() as f64) }
    /// Writes a name in UTF-8 for what NVRTC would make of the kernels for a compute capability; returns its bytes.
    fn vx_kernels_name(architecture: u32, text: slice_mut[u8]) {
        let name = kernels::name(architecture)?;
        let n = name.len().min(text.len());
        text[..n].copy_from_slice(&name.as_bytes()[..n]);
        Ok(n as f64)
    }
    /// Compiles all kernels with NVRTC, for use from now on. Returns the bytes of what `vx_kernels_read` copies out, once.
    fn vx_kernels_compile(architecture: u32) {
        let file = kernels::compile(architecture)?;
        let bytes = file.len() as f64;
        *MADE.lock().unwrap() = file;
        Ok(bytes)
    }
    /// Copies out what was compiled, to be kept.
    fn vx_kernels_read(file: slice_mut[u8]) {
        let made = std::mem::take(&mut *MADE.lock().unwrap());
        if made.len() != file.len() {
            return Err(format!("{} bytes were compiled, {} are asked for", made.len(), file.len()));
        }
        file.copy_from_slice(&made);
        Ok(0.0)
    }
    /// Uses what was compiled before and kept, from now on. 0: it is damaged or of other kernels, and compiling comes next.
    fn vx_kernels_give(architecture: u32, file: slice[u8]) {
        kernels::give(architecture, file).map(|taken| taken as u32 as f64)
    }
}
