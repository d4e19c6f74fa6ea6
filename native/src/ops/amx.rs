//! The tile unit of Intel processors (AMX): eight registers of 16 rows of 64 bytes, multiplied as pairs of bf16 with f32
//! sums. What multiplies with it (`linear::amx`, `conv3d::amx`) is written once over `Tiles`, which the instructions
//! implement (`Unit`) and plain Rust does (`Emulated`): the tests run the same source on any machine. It never ran on
//! hardware here. At run time it is chosen where the processor has it, the system lets us use it, and a product at the start
//! is right (`ready`).

use half::bf16;

/// Rows of a register, and pairs of bf16, or sums, of a row.
pub const SIDE: usize = 16;

/// Which implementation multiplies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Amx {
    Unit,
    Emulated,
}

/// Runs the body with `T`, the implementation that an `Amx` names.
macro_rules! by_tiles {
    ($amx:expr, $T:ident => $body:expr) => {
        match $amx {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            $crate::ops::amx::Amx::Unit => {
                type $T = $crate::ops::amx::Unit;
                $body
            }
            _ => {
                type $T = $crate::ops::amx::Emulated;
                $body
            }
        }
    };
}
pub(crate) use by_tiles;

/// Tile registers 0 to 7 of one thread, from `begin` to the drop.
///
/// Every method is unsafe: rows that it names are there, and the processor has the registers.
#[allow(clippy::missing_safety_doc)]
pub trait Tiles: Sized {
    /// Registers of 16 rows of 64 bytes, all zeros.
    unsafe fn begin() -> Self;
    /// 16 rows of 64 bytes, `stride` bytes apart, into register T.
    unsafe fn load<const T: usize>(&mut self, at: *const u8, stride: usize);
    /// Register T to 16 rows of 64 bytes, `stride` bytes apart.
    unsafe fn store<const T: usize>(&self, at: *mut u8, stride: usize);
    /// C[i][j] += sum over pairs k of A[i][k] . B[k][j].
    unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// 16 rows of 64 bytes: where the first is, and bytes from one to the next.
#[derive(Clone, Copy)]
pub struct Rows {
    pub at: *const u8,
    pub stride: usize,
}

/// Sums of 32 rows and 32 columns in registers 0 to 3.
pub struct Sums<T: Tiles>(T);

#[allow(clippy::missing_safety_doc)]
impl<T: Tiles> Sums<T> {
    /// # Safety
    /// As `Tiles::begin`.
    pub unsafe fn begin() -> Self {
        Sums(unsafe { T::begin() })
    }
    /// Takes the sums from `[32][row]`.
    pub unsafe fn open(&mut self, sums: *const f32, row: usize) {
        let (at, below) = (sums as *const u8, unsafe { sums.add(SIDE * row) } as *const u8);
        unsafe {
            self.0.load::<0>(at, 4 * row);
            self.0.load::<1>(at.add(64), 4 * row);
            self.0.load::<2>(below, 4 * row);
            self.0.load::<3>(below.add(64), 4 * row);
        }
    }
    /// Adds the products of twice 16 rows of 16 pairs with 16 rows of 32 pairs.
    pub unsafe fn step(&mut self, left: [Rows; 2], right: Rows) {
        unsafe {
            self.0.load::<4>(left[0].at, left[0].stride);
            self.0.load::<6>(right.at, right.stride);
            self.0.dot::<0, 4, 6>();
            self.0.load::<7>(right.at.add(64), right.stride);
            self.0.dot::<1, 4, 7>();
            self.0.load::<5>(left[1].at, left[1].stride);
            self.0.dot::<2, 5, 6>();
            self.0.dot::<3, 5, 7>();
        }
    }
    /// Puts the sums back.
    pub unsafe fn close(&mut self, sums: *mut f32, row: usize) {
        let (at, below) = (sums as *mut u8, unsafe { sums.add(SIDE * row) } as *mut u8);
        unsafe {
            self.0.store::<0>(at, 4 * row);
            self.0.store::<1>(at.add(64), 4 * row);
            self.0.store::<2>(below, 4 * row);
            self.0.store::<3>(below.add(64), 4 * row);
        }
    }
}

/// The registers in memory, and what the instructions do with them.
pub struct Emulated([[[u32; SIDE]; SIDE]; 8]);

impl Tiles for Emulated {
    unsafe fn begin() -> Self {
        Emulated([[[0; SIDE]; SIDE]; 8])
    }
    unsafe fn load<const T: usize>(&mut self, at: *const u8, stride: usize) {
        for (i, row) in self.0[T].iter_mut().enumerate() {
            *row = unsafe { (at.add(i * stride) as *const [u32; SIDE]).read_unaligned() };
        }
    }
    unsafe fn store<const T: usize>(&self, at: *mut u8, stride: usize) {
        for (i, row) in self.0[T].iter().enumerate() {
            unsafe { (at.add(i * stride) as *mut [u32; SIDE]).write_unaligned(*row) };
        }
    }
    /// tdpbf16ps (Intel's manual, volume 2): first and second values of the pairs are summed apart, then added.
    unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
        for i in 0..SIDE {
            let mut sums = [[0f32; 2]; SIDE];
            for k in 0..SIDE {
                let a = halves(self.0[A][i][k]);
                for (sum, pair) in sums.iter_mut().zip(self.0[B][k]) {
                    let b = halves(pair);
                    *sum = [sum[0] + a[0] * b[0], sum[1] + a[1] * b[1]];
                }
            }
            for (to, sum) in self.0[C][i].iter_mut().zip(sums) {
                *to = (f32::from_bits(*to) + (sum[0] + sum[1])).to_bits();
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit {
    use super::{SIDE, Tiles};
    use std::arch::asm;

    /// The instructions. They are written as assembly, since the compiler's functions for them are not stable.
    pub struct Unit(());

    /// What ldtilecfg reads.
    #[repr(C)]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    const WHOLE: Configuration = {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut i = 0;
        while i < 8 {
            (row_bytes[i], rows[i]) = (4 * SIDE as u16, SIDE as u8);
            i += 1;
        }
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    };

    impl Tiles for Unit {
        unsafe fn begin() -> Self {
            unsafe { asm!("ldtilecfg [{}]", in(reg) &WHOLE, options(nostack)) };
            Unit(())
        }
        #[inline(always)]
        unsafe fn load<const T: usize>(&mut self, at: *const u8, stride: usize) {
            unsafe {
                asm!("tileloadd tmm{t}, [{at} + {s} * 1]", t = const T, at = in(reg) at, s = in(reg) stride, options(nostack, readonly));
            }
        }
        #[inline(always)]
        unsafe fn store<const T: usize>(&self, at: *mut u8, stride: usize) {
            unsafe {
                asm!("tilestored [{at} + {s} * 1], tmm{t}", t = const T, at = in(reg) at, s = in(reg) stride, options(nostack));
            }
        }
        #[inline(always)]
        unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
            unsafe {
                asm!("tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B, options(nostack, nomem));
            }
        }
    }

    impl Drop for Unit {
        fn drop(&mut self) {
            unsafe { asm!("tilerelease", options(nostack)) };
        }
    }

    /// Whether the processor has tiles of bf16 (CPUID leaf 7) and the system lets this process use them.
    pub fn offered() -> bool {
        const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
        const ARCH_PRCTL: i64 = 158;
        const REQUEST_STATE: i64 = 0x1023;
        const TILE_DATA: i64 = 18;
        unsafe extern "C" {
            fn syscall(number: i64, ...) -> i64;
        }
        std::arch::x86_64::__cpuid(0).eax >= 7
            && std::arch::x86_64::__cpuid_count(7, 0).edx & TILE_AND_BF16 == TILE_AND_BF16
            && unsafe { syscall(ARCH_PRCTL, REQUEST_STATE, TILE_DATA) } == 0
    }
}
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use unit::Unit;

/// Whether the tile unit is there and multiplies small numbers as it should.
pub fn ready() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        use std::sync::OnceLock;
        static READY: OnceLock<bool> = OnceLock::new();
        return *READY.get_or_init(|| unit::offered() && unsafe { right::<Unit>() });
    }
    #[allow(unreachable_code)]
    false
}

/// Whether a product of 32 rows and columns over two steps, of integers whose sums are exact, is right.
///
/// # Safety
/// As `Tiles::begin`.
unsafe fn right<T: Tiles>() -> bool {
    let (a, b) = (
        |i: usize, k: usize| (i * 5 + k * 3) as f32 % 17.0 - 8.0,
        |k: usize, j: usize| (k * 7 + j * 11) as f32 % 13.0 - 6.0,
    );
    let left: [[bf16; 64]; 32] = std::array::from_fn(|i| std::array::from_fn(|k| bf16::from_f32(a(i, k))));
    let right: [[bf16; 64]; 32] =
        std::array::from_fn(|k| std::array::from_fn(|j| bf16::from_f32(b(2 * k + j % 2, j / 2))));
    let mut sums: [[f32; 32]; 32] = std::array::from_fn(|i| std::array::from_fn(|j| (i * 32 + j) as f32));
    let rows = |block: &[[bf16; 64]], skip: usize| Rows {
        at: unsafe { block.as_ptr().cast::<bf16>().add(skip) }.cast(),
        stride: 128,
    };
    unsafe {
        let mut tiles = Sums::<T>::begin();
        tiles.open(sums.as_flattened().as_ptr(), 32);
        for step in 0..2 {
            tiles.step([rows(&left, 32 * step), rows(&left[SIDE..], 32 * step)], rows(&right[SIDE * step..], 0));
        }
        tiles.close(sums.as_flattened_mut().as_mut_ptr(), 32);
    }
    let want = |i: usize, j: usize| (i * 32 + j) as f32 + (0..64).map(|k| a(i, k) * b(k, j)).sum::<f32>();
    sums.iter().enumerate().all(|(i, row)| row.iter().enumerate().all(|(j, sum)| *sum == want(i, j)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_at_the_start_passes_what_is_right_alone() {
        /// Forgets a product.
        struct Wrong(Emulated);
        impl Tiles for Wrong {
            unsafe fn begin() -> Self {
                Wrong(unsafe { Emulated::begin() })
            }
            unsafe fn load<const T: usize>(&mut self, at: *const u8, stride: usize) {
                unsafe { self.0.load::<T>(at, stride) }
            }
            unsafe fn store<const T: usize>(&self, at: *mut u8, stride: usize) {
                unsafe { self.0.store::<T>(at, stride) }
            }
            unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
                if C != 3 {
                    unsafe { self.0.dot::<C, A, B>() }
                }
            }
        }
        assert!(unsafe { right::<Emulated>() && !right::<Wrong>() });
    }
}
