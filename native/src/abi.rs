//! The boundary: how a function is exported, checked and described.
//!
//! Every export returns an f64: zero or more is its result, a negative number is the ticket of an error whose text
//! `vx_error_text` hands out once. A panic becomes a ticket too, never an abort.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};

/// What an export or an op reports: one sentence for the user.
pub type Result<T> = std::result::Result<T, String>;

/// One exported function as `lib/native/abi.ts` shows it.
pub struct Export {
    pub name: &'static str,
    pub doc: &'static str,
    /// (name, kind): `u32`, `i32`, `f32`, `f64`, `bool`, `slice[T]` or `slice_mut[T]` (pointer and length).
    pub params: &'static [(&'static str, &'static str)],
}

/// Declares exported functions once: symbol, documented parameters, guard and description.
#[macro_export]
macro_rules! exports {
    ($($(#[doc = $doc:literal])* fn $name:ident ( $($args:tt)* ) $body:block)*) => {
        /// Description of the exports of this module, read by the generator of `lib/native/abi.ts`.
        pub const ABI: &[$crate::abi::Export] = &[$($crate::abi::Export {
            name: stringify!($name),
            doc: concat!($($doc, "\n"),*),
            params: $crate::export_params!($($args)*),
        }),*];
        $($crate::export_one! { [$(#[doc = $doc])*] $name [] [] [$($args)* ,] $body })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_params {
    ($($a:ident : $k:ident $([$t:ident])?),* $(,)?) => {
        &[$((stringify!($a), concat!(stringify!($k) $(, "[", stringify!($t), "]")?))),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_one {
    ([$($m:tt)*] $n:ident [$($p:tt)*] [$($pre:tt)*] [$a:ident : slice [$t:ident] , $($rest:tt)*] $b:block) => {
        $crate::export_one! { [$($m)*] $n [$($p)* $a: *const $t, len: u32,]
            [$($pre)* let $a: &[$t] = unsafe { $crate::abi::slice($a, len) };] [$($rest)*] $b }
    };
    ([$($m:tt)*] $n:ident [$($p:tt)*] [$($pre:tt)*] [$a:ident : slice_mut [$t:ident] , $($rest:tt)*] $b:block) => {
        $crate::export_one! { [$($m)*] $n [$($p)* $a: *mut $t, len: u32,]
            [$($pre)* let $a: &mut [$t] = unsafe { $crate::abi::slice_mut($a, len) };] [$($rest)*] $b }
    };
    ([$($m:tt)*] $n:ident [$($p:tt)*] [$($pre:tt)*] [$a:ident : $t:ident , $($rest:tt)*] $b:block) => {
        $crate::export_one! { [$($m)*] $n [$($p)* $a: $t,] [$($pre)*] [$($rest)*] $b }
    };
    ([$($m:tt)*] $n:ident [$($p:tt)*] [$($pre:tt)*] [$(,)?] $b:block) => {
        $($m)*
        /// # Safety
        /// Buffers must be valid for their length; `lib/native` passes typed arrays.
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments)]
        pub unsafe extern "C" fn $n($($p)*) -> f64 {
            $($pre)*
            $crate::abi::guard(move || -> $crate::abi::Result<f64> { $b })
        }
    };
}

/// # Safety
/// `p` must point to `len` values that live through the call (null is an empty slice).
pub unsafe fn slice<'a, T>(p: *const T, len: u32) -> &'a [T] {
    if p.is_null() || len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(p, len as usize) } }
}

/// # Safety
/// As `slice`, and nobody else uses the buffer during the call.
pub unsafe fn slice_mut<'a, T>(p: *mut T, len: u32) -> &'a mut [T] {
    if p.is_null() || len == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(p, len as usize) } }
}

static TICKETS: Mutex<Option<HashMap<u32, String>>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Files an error and returns the negative ticket number.
pub fn ticket(text: String) -> f64 {
    let mut guard = TICKETS.lock().unwrap_or_else(|e| e.into_inner());
    let map = guard.get_or_insert_with(HashMap::new);
    let mut number = map.len() as u32 + 1;
    while map.contains_key(&number) {
        number += 1;
    }
    map.insert(number, text);
    -(number as f64)
}

/// Text of a caught panic.
pub fn panic_text(cause: Box<dyn std::any::Any + Send>) -> String {
    if let Some(failure) = cause.downcast_ref::<crate::gpu::Failure>() {
        return failure.0.clone();
    }
    let text = cause.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| cause.downcast_ref::<String>().cloned()).unwrap_or_default();
    format!("internal error: {text}")
}

/// Runs an export: a panic or an error becomes a ticket.
pub fn guard(body: impl FnOnce() -> Result<f64>) -> f64 {
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(text)) => ticket(text),
        Err(cause) => ticket(panic_text(cause)),
    }
}

/// Every module with exports: one line each.
#[allow(clippy::vec_init_then_push)]
pub fn modules() -> Vec<&'static [Export]> {
    let mut list = vec![ABI];
    list.push(crate::tensor::ABI);
    list.push(crate::grid::ABI);
    list.push(crate::queue::ABI);
    list.push(crate::memory::ABI);
    list.push(crate::random::ABI);
    list.push(crate::device::ABI);
    list.push(crate::gpu::ABI);
    list.push(crate::gpu::kept::ABI);
    list.push(crate::peak::ABI);
    list.push(crate::volume::ABI);
    list.push(crate::ops::conv3d::ABI);
    list.push(crate::ops::conv3d::filled::ABI);
    list.push(crate::ops::conv3d::joined::ABI);
    list.push(crate::ops::conv3d::choice::ABI);
    list.push(crate::ops::conv3d::isa::ABI);
    list.push(crate::ops::conv3d_stacked::ABI);
    list.push(crate::ops::fragments::ABI);
    list.push(crate::ops::elementwise::ABI);
    list.push(crate::ops::optimizer::ABI);
    list.push(crate::ops::separable::ABI);
    list.push(crate::ops::cosine::ABI);
    list.push(crate::ops::ntxent::ABI);
    list.push(crate::ops::gram::ABI);
    list.push(crate::ops::segmentation::ABI);
    list.push(crate::sample::ABI);
    list.push(crate::sample::labels::ABI);
    list.push(crate::sample::intensity::ABI);
    list.push(crate::ops::view::ABI);
    list.push(crate::ops::norm::ABI);
    list.push(crate::ops::activation::ABI);
    list.push(crate::ops::pool::ABI);
    list.push(crate::ops::maxpool::ABI);
    list.push(crate::ops::softmax_pool::ABI);
    list.push(crate::ops::concat::ABI);
    list.push(crate::ops::densify::ABI);
    list.push(crate::ops::reconstruction::ABI);
    list.push(crate::ops::depthwise::ABI);
    list.push(crate::ops::lattice::ABI);
    list.push(crate::ops::gelu::ABI);
    list.push(crate::ops::layer_norm::ABI);
    list.push(crate::ops::layer_scale::ABI);
    list.push(crate::ops::linear::ABI);
    list.push(crate::ops::fold::ABI);
    list.push(crate::ops::norm_silu::ABI);
    list.push(crate::ops::swiglu::ABI);
    list.push(crate::ops::tokens::ABI);
    list.push(crate::ops::attention::ABI);
    list.push(crate::ops::gather::ABI);
    list.push(crate::ops::window_attention::ABI);
    list
}

/// FNV-1a hash of all signatures: the library and `abi.ts` must agree on it.
pub fn signature_hash() -> u32 {
    let mut hash = 0x811c9dc5u32;
    for export in modules().into_iter().flatten() {
        let text = export.params.iter().fold(export.name.to_string(), |t, (n, k)| t + " " + n + ":" + k);
        for byte in text.bytes().chain([b'\n']) {
            hash = (hash ^ byte as u32).wrapping_mul(0x01000193);
        }
    }
    hash
}

exports! {
    /// Hash of all signatures; checked when the library is opened.
    fn vx_abi_hash() { Ok(signature_hash() as f64) }
    /// Writes the text of an error ticket as UTF-8, forgets the ticket, and returns the byte count.
    fn vx_error_text(number: u32, text: slice_mut[u8]) {
        let found = TICKETS.lock().unwrap_or_else(|e| e.into_inner()).as_mut().and_then(|m| m.remove(&number));
        let found = found.ok_or("no such error ticket")?;
        let n = found.len().min(text.len());
        text[..n].copy_from_slice(&found.as_bytes()[..n]);
        Ok(n as f64)
    }
}
