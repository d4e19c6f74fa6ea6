//! The text of all kernels, and what NVRTC makes of it where the library has no compiled ones that the card takes. The caller
//! keeps what was compiled: nothing here opens a file.

use crate::abi::Result;
use cudarc::nvrtc::result::{NvrtcError, compile_program, create_program, destroy_program, get_program_log, get_ptx};
use cudarc::nvrtc::sys;
use flate2::Crc;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

/// The kernels of one op.
pub struct Source {
    pub op: &'static str,
    /// The kernel.cu with its headers in it, for NVRTC.
    text: &'static str,
    /// For sm_80, sm_90a and, as PTX, everything newer; empty where the build found no nvcc.
    pub image: &'static [u8],
    pub kernels: &'static [&'static str],
}
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What was compiled, by op: cubin, or PTX where NVRTC does not know the card.
type Images = HashMap<&'static str, Vec<u8>>;
static COMPILED: Mutex<Option<Images>> = Mutex::new(None);

/// The op that has `kernel`.
pub fn source_of(kernel: &str) -> Result<&'static Source> {
    SOURCES.iter().find(|s| s.kernels.contains(&kernel)).ok_or_else(|| format!("there is no kernel {kernel}"))
}

/// The smallest compiled op of the library, for a card to try; empty: it has none.
pub fn sample() -> &'static [u8] {
    SOURCES.iter().map(|s| s.image).min_by_key(|image| image.len()).unwrap_or_default()
}

/// What was compiled of an op, for whole words of a driver: bytes begin anywhere.
pub fn words(image: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    image.chunks(8).map(word).collect()
}

/// What NVRTC made of an op, as `words`.
pub fn compiled(op: &str) -> Option<Vec<u64>> {
    COMPILED.lock().unwrap().as_ref().and_then(|images| images.get(op)).map(|image| words(image))
}

/// NVRTC found at run time.
struct Nvrtc {
    version: (c_int, c_int),
    /// It makes machine code for this; else PTX.
    target: String,
    machine_code: bool,
}

fn told(outcome: std::result::Result<(), NvrtcError>) -> Result<()> {
    outcome.map_err(|e| format!("NVRTC fails with {:?}", e.0))
}

impl Nvrtc {
    /// For a card of compute capability `architecture` (90: 9.0).
    fn open(architecture: u32) -> Result<Nvrtc> {
        if !unsafe { sys::is_culib_present() } {
            return Err(
                "the library holds no kernels that this GPU takes, and NVRTC (libnvrtc) is not on the library path \
                        to compile them; install it, or build where nvcc is on PATH"
                    .into(),
            );
        }
        let (mut major, mut minor, mut count) = (0, 0, 0);
        told(unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result())?;
        told(unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }.result())?;
        let mut known = vec![0; count as usize];
        told(unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result())?;
        let machine_code = known.contains(&(architecture as c_int));
        let target = match (architecture, machine_code) {
            (90, true) => "sm_90a".into(),
            (_, true) => format!("sm_{architecture}"),
            (..90, false) => "compute_80".into(),
            _ => "compute_90".into(),
        };
        Ok(Nvrtc { version: (major, minor), target, machine_code })
    }
    fn options(&self) -> [String; 3] {
        ["-std=c++17".into(), "-default-device".into(), format!("--gpu-architecture={}", self.target)]
    }
    /// A name that other text, options, targets and releases do not have.
    fn name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (text_hash(), self.options()).hash(&mut hasher);
        let (major, minor) = self.version;
        format!("{}-nvrtc-{major}.{minor}-{:016x}", self.target, hasher.finish())
    }
    fn compile(&self, source: &Source) -> Result<Vec<u8>> {
        let text = CString::new(source.text).map_err(|e| e.to_string())?;
        let failed = |e: NvrtcError| format!("NVRTC fails with {:?} for the kernels of {}", e.0, source.op);
        let program = create_program(&text, None).map_err(failed)?;
        let made = unsafe {
            compile_program(program, &self.options()).map_err(|e| {
                let log = get_program_log(program).unwrap_or_default();
                let log = if log.is_empty() { "".into() } else { CStr::from_ptr(log.as_ptr()).to_string_lossy() };
                format!("{}: {:.300}", failed(e), log.replace('\n', " "))
            })
        };
        let image = made.and_then(|()| unsafe {
            if !self.machine_code {
                return get_ptx(program).map(|ptx| ptx.iter().map(|&c| c as u8).collect()).map_err(failed);
            }
            let mut bytes = 0;
            sys::nvrtcGetCUBINSize(program, &mut bytes).result().map_err(failed)?;
            let mut cubin = vec![0u8; bytes];
            sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()).result().map_err(failed)?;
            Ok(cubin)
        });
        unsafe { destroy_program(program) }.map_err(failed)?;
        image
    }
}

/// Of the text of all kernels, 48 bits.
pub fn text_hash() -> u64 {
    let mut hasher = DefaultHasher::new();
    SOURCES.iter().for_each(|s| (s.op, s.text).hash(&mut hasher));
    hasher.finish() >> 16
}

/// Name of what `compile` makes for a card of compute capability `architecture`.
pub fn name(architecture: u32) -> Result<String> {
    Nvrtc::open(architecture).map(|nvrtc| nvrtc.name())
}

/// Compiles all kernels, for use from now on. Returns what `give` takes: the name, each op with its code, a checksum.
pub fn compile(architecture: u32) -> Result<Vec<u8>> {
    let nvrtc = Nvrtc::open(architecture)?;
    let images: Vec<_> = SOURCES.par_iter().map(|s| Ok((s.op, nvrtc.compile(s)?))).collect::<Result<_>>()?;
    let mut file = Vec::new();
    let mut part = |bytes: &[u8]| {
        file.extend((bytes.len() as u64).to_le_bytes());
        file.extend(bytes);
    };
    part(nvrtc.name().as_bytes());
    for (op, image) in &images {
        part(op.as_bytes());
        part(image);
    }
    file.extend(checksum(&file).to_le_bytes());
    *COMPILED.lock().unwrap() = Some(images.into_iter().collect());
    Ok(file)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Takes what `compile` returned before, for use from now on. False: it is damaged, or was made of other text.
pub fn give(architecture: u32, file: &[u8]) -> Result<bool> {
    let name = name(architecture)?;
    let images = read(file).filter(|(found, images)| *found == name.as_bytes() && images.len() == SOURCES.len());
    let taken = images.is_some();
    if let Some((_, images)) = images {
        *COMPILED.lock().unwrap() = Some(images);
    }
    Ok(taken)
}

/// Name and images of a file; None: it is damaged.
fn read(file: &[u8]) -> Option<(&[u8], Images)> {
    let (mut rest, sum) = file.split_last_chunk::<4>()?;
    if checksum(rest) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut part = || {
        let (bytes, after) = rest.split_first_chunk::<8>()?;
        let (part, after) = after.split_at_checked(u64::from_le_bytes(*bytes) as usize)?;
        rest = after;
        Some(part)
    };
    let name = part()?;
    let mut images = Images::new();
    while let Some(op) = part() {
        let source = SOURCES.iter().find(|s| s.op.as_bytes() == op)?;
        images.insert(source.op, part()?.to_vec());
    }
    Some((name, images))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs where NVRTC is on the library path (LD_LIBRARY_PATH); the Python wheel nvidia-cuda-nvrtc-cu12 has it.
    #[test]
    fn nvrtc_compiles_all_kernels_and_its_work_is_taken_back_whole() {
        if !unsafe { sys::is_culib_present() } {
            return println!("skipped: there is no libnvrtc on the library path");
        }
        let mut file = compile(90).unwrap();
        assert!(name(90).unwrap().starts_with("sm_90a-nvrtc-"));
        assert_ne!(name(80).unwrap(), name(90).unwrap());
        *COMPILED.lock().unwrap() = None;
        assert!(give(90, &file).unwrap());
        for source in SOURCES {
            assert_eq!(compiled(source.op).unwrap()[0].to_ne_bytes()[..4], *b"\x7fELF", "{}", source.op);
        }
        assert!(!give(80, &file).unwrap());
        assert!(!give(90, &file[..file.len() / 2]).unwrap());
        let middle = file.len() / 2;
        file[middle] ^= 1;
        assert!(!give(90, &file).unwrap() && !give(90, &[]).unwrap());
        assert!(compile(121).map(|ptx| ptx.windows(8).any(|w| w == b".version")).is_ok());
    }
}
