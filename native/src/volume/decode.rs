//! NIfTI-1 and NIfTI-2 files in memory: both byte orders, gzip or plain, every integer and float type.
//!
//! The `nifti` crate reads version 1 headers and names the types; the rest is here: version 2 (after nifti2.h), the
//! affine and all checks. No memory is taken on the word of a header: what it announces must be possible for the bytes
//! at hand.

use super::Affine;
use super::orient::{determinant, norms};
use crate::abi::Result;
use crate::memory::huge_pages;
use crate::ops::rows;
use flate2::bufread::GzDecoder;
use nifti::{NiftiHeader, NiftiType};
use rayon::prelude::*;
use std::array::from_fn;
use std::io::Read;

/// Deflate shrinks at most 1032 to 1.
const DEFLATE_RATIO: f64 = 1040.0;
/// Bytes beyond the voxels that are let through.
const SLACK: usize = 1 << 20;
/// Most bytes of voxels read at once.
const MAX_BYTES: f64 = (1u64 << 30) as f64;

/// What a header says about its voxels.
#[derive(Debug)]
pub struct Header {
    /// Voxels along x, y, z.
    pub size: [usize; 3],
    /// Volumes: the product of the axes beyond the third.
    pub channels: usize,
    kind: NiftiType,
    little: bool,
    single: bool,
    offset: usize,
    slope: f64,
    inter: f64,
    /// Voxel (x, y, z) centre -> RAS mm.
    pub affine: Affine,
}

/// A decoded file: header and the bytes up to the end of its voxels.
#[derive(Debug)]
pub struct Decoded {
    pub header: Header,
    bytes: Vec<u8>,
}

/// A number of the file's byte order from exactly its bytes.
macro_rules! number {
    ($t:ty, $bytes:expr, $little:expr) => {{
        let b = $bytes.try_into().expect("bytes of a number");
        if $little { <$t>::from_le_bytes(b) } else { <$t>::from_be_bytes(b) }
    }};
}

/// What both versions say, as wide as version 2 says it.
struct Fields {
    dim: [i64; 8],
    datatype: i16,
    pixdim: [f64; 8],
    offset: f64,
    slope: f64,
    inter: f64,
    units: u8,
    qform: i32,
    sform: i32,
    /// Quaternion b, c, d and offset x, y, z.
    quatern: [f64; 6],
    srow: Affine,
}

impl Fields {
    /// Version 1. The crate takes the byte order from dim[0], wrongly where that is no rank, and sizes for u16.
    fn one(head: &[u8]) -> Result<Fields> {
        let h =
            NiftiHeader::from_reader(head).map_err(|e| format!("the header is damaged ({e}); copy the file again"))?;
        let mut dim = h.dim.map(|n| n as i16 as i64);
        if h.sizeof_hdr != 348 {
            dim[0] = h.dim[0].swap_bytes() as i16 as i64;
        }
        Ok(Fields {
            dim,
            datatype: h.datatype,
            pixdim: h.pixdim.map(f64::from),
            offset: h.vox_offset.into(),
            slope: h.scl_slope.into(),
            inter: h.scl_inter.into(),
            units: h.xyzt_units,
            qform: h.qform_code.into(),
            sform: h.sform_code.into(),
            quatern: [h.quatern_b, h.quatern_c, h.quatern_d, h.quatern_x, h.quatern_y, h.quatern_z].map(f64::from),
            srow: [h.srow_x, h.srow_y, h.srow_z].map(|row| row.map(f64::from)),
        })
    }

    /// Version 2.
    fn two(head: &[u8], little: bool) -> Result<Fields> {
        let int = |at: usize| number!(i32, head[at..at + 4], little);
        let long = |at: usize| number!(i64, head[at..at + 8], little);
        let real = |at: usize| f64::from_bits(long(at) as u64);
        let intent = int(504);
        if (3000..3100).contains(&intent) {
            return Err(format!(
                "intent_code {intent} is CIFTI, which holds no volume; give the volume it was made from"
            ));
        }
        Ok(Fields {
            dim: from_fn(|i| long(16 + 8 * i)),
            datatype: number!(i16, head[12..14], little),
            pixdim: from_fn(|i| real(104 + 8 * i)),
            offset: long(168) as f64,
            slope: real(176),
            inter: real(184),
            units: int(500) as u8,
            qform: int(344),
            sform: int(348),
            quatern: from_fn(|i| real(352 + 8 * i)),
            srow: from_fn(|r| from_fn(|c| real(400 + 32 * r + 8 * c))),
        })
    }
}

/// Decodes a file; `image` holds the `.img` of a pair and is empty otherwise.
pub fn decode(bytes: &[u8], image: &[u8]) -> Result<Decoded> {
    if bytes.is_empty() {
        return Err("the file is empty; copy it again".into());
    }
    let header = parse(&inflate(bytes, 540, true)?)?;
    let voxels = header.size.iter().map(|&n| n as f64).product::<f64>() * header.channels as f64;
    let source = if header.single { bytes } else { image };
    if source.is_empty() {
        return Err("this is the header of a pair and its .img file is missing or empty; put it beside".into());
    }
    let announced = header.offset as f64 + voxels * header.kind.size_of() as f64;
    let ratio = if is_gzip(source) { DEFLATE_RATIO } else { 1.0 };
    if announced > source.len() as f64 * ratio {
        return Err(cut(announced, source.len()));
    }
    if announced > MAX_BYTES {
        return Err(format!("{announced} bytes of voxels are more than the 1 GiB read at once; split or crop it"));
    }
    let end = announced as usize;
    let mut all = inflate(source, end, false)?;
    if all.len() < end {
        return Err(cut(announced, all.len()));
    }
    all.truncate(end);
    Ok(Decoded { header, bytes: all })
}

fn cut(announced: f64, have: usize) -> String {
    format!("the file is cut: its header announces {announced} bytes and there are {have}; copy it again")
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The first `wanted` bytes without gzip (all members). With `head` nothing more is read; without, the rest is
/// checked (CRC, at most 1 MiB of it) and junk after a whole member is passed over.
fn inflate(bytes: &[u8], wanted: usize, head: bool) -> Result<Vec<u8>> {
    if !is_gzip(bytes) {
        return Ok(bytes[..bytes.len().min(wanted)].to_vec());
    }
    let damaged = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "the gzip stream is cut; copy the file again".to_string(),
        _ => format!("the gzip stream is damaged ({e}); copy the file again"),
    };
    let mut out = Vec::with_capacity(wanted);
    huge_pages(out.spare_capacity_mut());
    let mut rest = bytes;
    let mut extra = 0;
    while is_gzip(rest) {
        let mut member = GzDecoder::new(rest);
        let missing = (wanted - out.len()) as u64;
        match (&mut member).take(missing).read_to_end(&mut out) {
            Err(_) if head && out.len() >= 348 => return Ok(out),
            result => result.map_err(damaged)?,
        };
        if head && out.len() == wanted {
            return Ok(out);
        }
        extra +=
            std::io::copy(&mut (&mut member).take((SLACK + 1) as u64), &mut std::io::sink()).map_err(damaged)? as usize;
        if extra > SLACK {
            return Err(format!("the file goes on for over 1 MiB behind its {wanted} bytes of voxels; it is damaged"));
        }
        rest = member.into_inner();
    }
    Ok(out)
}

/// The type of a voxel, where it is one number.
fn kind(datatype: i16) -> Result<NiftiType> {
    use NiftiType::*;
    let name = match (NiftiHeader { datatype, ..Default::default() }).data_type() {
        Ok(Complex64 | Complex128 | Complex256) => " (complex)",
        Ok(Rgb24 | Rgba32) => " (RGB colour)",
        Ok(kind) => return Ok(kind),
        Err(_) if datatype == 1 => " (binary)",
        Err(_) => "",
    };
    Err(format!("datatype {datatype}{name} is not read; convert it to integers or floats"))
}

/// Reads a header: trailing axes of 1 dropped, sform before qform before spacing alone, units to mm.
fn parse(head: &[u8]) -> Result<Header> {
    let size = |little: bool| match head.first_chunk::<4>() {
        Some(&b) if little => i32::from_le_bytes(b),
        Some(&b) => i32::from_be_bytes(b),
        None => 0,
    };
    let little = matches!(size(true), 348 | 540);
    let length = size(little);
    if !matches!(length, 348 | 540) {
        return Err(
            "this is not a NIfTI file (it does not begin with header size 348 or 540); remove or convert it".into()
        );
    }
    if head.len() < length as usize {
        return Err(format!("the file is cut inside its header ({} of {length} bytes); copy it again", head.len()));
    }
    let (magic, digit) = if length == 540 { (&head[4..8], b'2') } else { (&head[344..348], b'1') };
    if magic != [b'n', b'+', digit, 0] && magic != [b'n', b'i', digit, 0] {
        return Err(format!(
            "the NIfTI magic is {:?}; Analyze and damaged files are not read, convert it to NIfTI",
            String::from_utf8_lossy(magic)
        ));
    }
    let single = magic[1] == b'+';
    let f = if length == 540 { Fields::two(head, little)? } else { Fields::one(head)? };
    let rank = f.dim[0];
    if !(1..=7).contains(&rank) {
        return Err(format!("dim[0] is {rank}; it must be 1 to 7"));
    }
    let kind = kind(f.datatype)?;
    let mut size = [1usize; 3];
    let mut channels = 1f64;
    for i in 1..=rank as usize {
        match f.dim[i] {
            n if n < 1 => return Err(format!("dim[{i}] is {n}; every axis needs at least one voxel")),
            n if n > i32::MAX as i64 => return Err(format!("dim[{i}] is {n}, more than can be read")),
            n if i <= 3 => size[i - 1] = n as usize,
            n => channels *= n as f64,
        }
    }
    if channels > i32::MAX as f64 {
        return Err(format!("the axes beyond the third announce {channels} volumes, more than can be read"));
    }

    let minimum = length as f64 + 4.0;
    if f.offset.is_nan() || f.offset < 0.0 {
        return Err(format!("vox_offset is {}; it must be a byte position of at least {minimum}", f.offset));
    }
    let offset = if single && f.offset < length as f64 { minimum } else { f.offset };
    if offset > MAX_BYTES {
        return Err(cut(offset, head.len()));
    }

    let (mut slope, mut inter) = (f.slope, f.inter);
    if slope == 0.0 || !slope.is_finite() {
        (slope, inter) = (1.0, 0.0);
    } else if !inter.is_finite() {
        return Err(format!("scl_inter is {inter} while scl_slope is {slope}; set it to a number"));
    }
    let affine = affine(&f, size)?;
    Ok(Header {
        size,
        channels: channels as usize,
        kind,
        little,
        single,
        offset: offset as usize,
        slope,
        inter,
        affine,
    })
}

fn affine(f: &Fields, size: [usize; 3]) -> Result<Affine> {
    let mm = match f.units & 7 {
        1 => 1000.0,
        3 => 0.001,
        _ => 1.0,
    };
    let scaled = |a: Affine| a.map(|row| row.map(|v| v * mm));
    if f.sform > 0 && usable(&f.srow) {
        return Ok(scaled(f.srow));
    }
    let step = [0, 1, 2].map(|i| match f.pixdim[i + 1].abs() {
        p if size[i] == 1 && (p.is_nan() || p == 0.0) => 1.0,
        p => p,
    });
    if f.qform > 0 {
        let turn = rotation([0, 1, 2].map(|i| f.quatern[i]));
        let sign = [1.0, 1.0, if f.pixdim[0] < 0.0 { -1.0 } else { 1.0 }];
        let row = |i: usize| {
            let at = |j: usize| turn[i][j] * step[j] * sign[j];
            [at(0), at(1), at(2), f.quatern[3 + i]]
        };
        let rows = [row(0), row(1), row(2)];
        if usable(&rows) {
            return Ok(scaled(rows));
        }
    }
    let rows = [[step[0], 0.0, 0.0, 0.0], [0.0, step[1], 0.0, 0.0], [0.0, 0.0, step[2], 0.0]];
    if usable(&rows) {
        return Ok(scaled(rows));
    }
    let text = [1, 2, 3].map(|i| f.pixdim[i].to_string()).join(", ");
    Err(format!("there is no usable sform or qform, and pixdim {text} gives no voxel size; set pixdim or an sform"))
}

/// Finite and without a flat direction.
fn usable(a: &Affine) -> bool {
    let n = norms(a);
    a.iter().flatten().all(|v| v.is_finite()) && determinant(a).abs() > 1e-6 * n[0] * n[1] * n[2]
}

/// Rotation of a quaternion (b, c, d). Float32 leaves 1e-7 of a half turn's a = 0, whose root would show: it counts
/// as 0 (as in nifti1_io.c), and a longer vector is scaled to a half turn.
fn rotation(q: [f64; 3]) -> [[f64; 3]; 3] {
    let square = q.iter().map(|v| v * v).sum::<f64>();
    let half = 1.0 - square < 1e-7;
    let a = if half { 0.0 } else { (1.0 - square).sqrt() };
    let [b, c, d] = if half { q.map(|v| v / square.sqrt()) } else { q };
    [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
}

impl Decoded {
    /// Voxels of one volume in file order (x fastest): slope * stored + inter, computed in f64.
    pub fn channel(&self, channel: usize) -> Result<Vec<f32>> {
        let h = &self.header;
        if channel >= h.channels {
            return Err(format!("there is no volume {channel}, the file holds {}", h.channels));
        }
        let voxels = h.size.iter().product::<usize>();
        macro_rules! read {
            ($t:ty) => {{
                const N: usize = size_of::<$t>();
                let bytes = &self.bytes[h.offset + channel * voxels * N..][..voxels * N];
                let mut data = vec![0f32; voxels];
                huge_pages(&mut data);
                rows::each(&mut data, |first, part| {
                    let bytes = bytes[first * N..].chunks_exact(N);
                    // Two loops, so that each knows the order.
                    if h.little {
                        let value = |b: &[u8]| (number!($t, b, true) as f64 * h.slope + h.inter) as f32;
                        part.iter_mut().zip(bytes).for_each(|(v, b)| *v = value(b));
                    } else {
                        let value = |b: &[u8]| (number!($t, b, false) as f64 * h.slope + h.inter) as f32;
                        part.iter_mut().zip(bytes).for_each(|(v, b)| *v = value(b));
                    }
                });
                data
            }};
        }
        let data: Vec<f32> = match h.kind {
            NiftiType::Uint8 => read!(u8),
            NiftiType::Int16 => read!(i16),
            NiftiType::Int32 => read!(i32),
            NiftiType::Float32 => read!(f32),
            NiftiType::Float64 => read!(f64),
            NiftiType::Int8 => read!(i8),
            NiftiType::Uint16 => read!(u16),
            NiftiType::Uint32 => read!(u32),
            NiftiType::Int64 => read!(i64),
            NiftiType::Uint64 => read!(u64),
            _ => {
                let bytes = &self.bytes[h.offset + channel * voxels * 16..][..voxels * 16];
                bytes.chunks(16).map(|b| (long_double(b, h.little) * h.slope + h.inter) as f32).collect()
            }
        };
        let bad = |part: &[f32]| part.iter().map(|v| !v.is_finite() as u32).sum::<u32>() as usize;
        let bad: usize = data.par_chunks(1 << 16).map(|part| rows::vectorised(|| bad(part))).sum();
        if bad > 0 {
            return Err(format!("{bad} of {voxels} voxels are NaN, infinite or beyond float32; replace them first"));
        }
        Ok(data)
    }
}

/// A 16-byte float: x87 extended precision (what NumPy writes on x86: six bytes of zero behind it) or IEEE quad.
fn long_double(b: &[u8], little: bool) -> f64 {
    let bits = number!(u128, b, little);
    let (top, fraction) = if bits >> 80 == 0 {
        ((bits >> 64) as u32, (bits as u64) as f64 / (1u64 << 63) as f64)
    } else {
        ((bits >> 112) as u32, 1.0 + ((bits << 16) >> 64) as f64 / 18446744073709551616.0)
    };
    let (sign, exponent) = (if top & 0x8000 == 0 { 1.0 } else { -1.0 }, (top & 0x7fff) as i32);
    if exponent == 0x7fff { f64::NAN } else { sign * fraction * 2f64.powi((exponent - 16383).clamp(-1100, 1100)) }
}
